"""`python -m crypto_dashboard`."""

import sys

from crypto_dashboard.cli import main

if __name__ == "__main__":
    sys.exit(main())
