"""`python3 -m crypto_producer` is the same as the `crypto-producer` command."""

import sys

from crypto_producer.cli import main

if __name__ == "__main__":
    sys.exit(main())
