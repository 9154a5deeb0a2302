#!/usr/bin/env python3
"""Submit the stream processor to the Flink cluster once. The supervisor does it whenever it is needed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from crypto_flink.client import main

if __name__ == "__main__":
    sys.exit(main())
