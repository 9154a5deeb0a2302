"""Makes the app importable from its source tree, as a node does by PYTHONPATH."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "apps" / "producer" / "src"))
