"""`python -m crypto_kafka_ui`."""

import sys

from crypto_kafka_ui.cli import main

if __name__ == "__main__":
    sys.exit(main())
