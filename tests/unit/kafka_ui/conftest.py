"""Makes the package and this folder's fake cluster importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "apps" / "kafka_ui" / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
