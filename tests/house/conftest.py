"""Makes this folder's helper module and the apps' packages importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path += [str(path) for path in sorted(Path(__file__).resolve().parents[2].glob("apps/*/src"))]
sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))
