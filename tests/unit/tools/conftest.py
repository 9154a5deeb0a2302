"""Makes the modules behind `make` importable, and keeps them away from the checkout's own labs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools" / "lab"))
# Test files share what nodes there are.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import context


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout: what a context writes goes below this folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.setattr(context, "REPOSITORY", folder)
    monkeypatch.setenv("CSL_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def lab(checkout: Path) -> context.Context:
    """The default lab of an empty checkout."""
    assert checkout.is_dir()
    return context.Context(target="lxd", lab="lab")
