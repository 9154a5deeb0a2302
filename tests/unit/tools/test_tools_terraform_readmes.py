"""tools/terraform_readmes.py: the tables come from the code, what is written by hand stays."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "terraform_readmes.py"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("terraform_readmes", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "terraform" / "modules").mkdir(parents=True)
    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    monkeypatch.setattr(module, "TERRAFORM", tmp_path / "terraform")
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "terraform" / "moon"
    folder.mkdir(parents=True)
    (folder / "versions.tf").write_text(
        'terraform {\n  required_version = ">= 1.9.0"\n  required_providers {\n'
        '    moon = {\n      source  = "example/moon"\n      version = "~> 2.0"\n    }\n  }\n}\n'
    )
    (folder / "variables.tf").write_text(
        'variable "b" {\n  description = "One | \\"two\\"."\n  type        = list(string)\n  default     = ["x"]\n}\n\n'
        'variable "c" {\n  description = "Needed."\n  type        = object({ name = optional(string, "n") })\n}\n'
    )
    (folder / "outputs.tf").write_text('output "o" {\n  description = "Out."\n  value       = max([1, 2]...) + 1\n}\n')
    (folder / "main.tf").write_text(
        'resource "moon_rock" "a" {}\n\nmodule "m" {\n  for_each = {}\n\n  source = "../modules/m"\n}\n'
    )
    return folder


def test_tables(tool: Any, root: Path) -> None:
    text = tool.readme(root)
    assert text.startswith("# terraform/moon\n")
    for line in (
        "| example/moon | `~> 2.0` |",
        '| c | Needed. | `object({name = optional(string, "n")})` | required |',
        '| b | One \\| "two". | `list(string)` | `["x"]` |',
        "| o | Out. |",
        "| m | [../modules/m](../modules/m) |",
        "`moon_rock.a`",
    ):
        assert line in text.splitlines(), text
    # What is required comes first.
    assert text.index("| c |") < text.index("| b |")


def test_what_is_written_by_hand_stays(tool: Any, root: Path) -> None:
    path = root / "README.md"
    path.write_text(f"# Moon\n\nBy hand.\n\n{tool.BEGIN}\nold\n{tool.END}\n\nAfter.\n")
    text = tool.readme(root)
    assert text.startswith("# Moon\n\nBy hand.\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    path.write_text(text)
    assert tool.readme(root) == text


def test_marks_must_be_there(tool: Any, root: Path) -> None:
    (root / "README.md").write_text("# Moon\n")
    with pytest.raises(ValueError, match="lacks the lines"):
        tool.readme(root)


def test_check_names_what_differs(
    tool: Any, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["terraform_readmes.py", "--check"])
    assert tool.main() == 1
    assert "terraform/moon/README.md differs" in capsys.readouterr().out
    assert not (root / "README.md").exists()
    monkeypatch.setattr("sys.argv", ["terraform_readmes.py"])
    assert tool.main() == 0
    monkeypatch.setattr("sys.argv", ["terraform_readmes.py", "--check"])
    assert tool.main() == 0
