"""What the lab's own tool (tools/lab) knows of a lab, for the part of this package that runs on the controller."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(REPOSITORY / "tools" / "lab"))
import screen  # noqa: E402 - found on the path set above
from context import Context  # noqa: E402 - found on the path set above
from context import LabError as ToolError  # noqa: E402 - found on the path set above

__all__ = ["REPOSITORY", "Context", "ToolError", "screen"]
