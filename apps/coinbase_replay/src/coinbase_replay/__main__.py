"""`python3 -m coinbase_replay` is the same as the `coinbase-replay` command."""

import sys

from coinbase_replay.cli import main

if __name__ == "__main__":
    sys.exit(main())
