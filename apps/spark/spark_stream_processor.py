#!/usr/bin/env python3
"""Entry point of the Spark application, also from a checkout where the package is not installed."""

import sys
from pathlib import Path

_SOURCES = Path(__file__).resolve().parent / "src"
if _SOURCES.is_dir():
    sys.path.insert(0, str(_SOURCES))

from crypto_spark.__main__ import main  # noqa: E402 - the path has to be set first

if __name__ == "__main__":
    sys.exit(main())
