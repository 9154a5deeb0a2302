"""`python -m compare`: the controller's command."""

from __future__ import annotations

import sys

from compare.cli import main

sys.exit(main())
