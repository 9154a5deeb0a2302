"""Makes the package and this folder's fake lab importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "apps" / "dashboard" / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
