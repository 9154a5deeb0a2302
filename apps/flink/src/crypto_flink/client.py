"""Submit the stream processor to the Flink cluster once. The supervisor does it whenever it is needed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crypto_flink.config import ConfigError, load_config
from crypto_flink.decision import EXIT_CHECKPOINT
from crypto_flink.job import TopicChangedError, submit


def main() -> int:
    """Return the exit code: 0 submitted, 2 unusable configuration, 3 state of another topic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file")
    parser.add_argument("--restore-from", help="path of the checkpoint or savepoint to resume from")
    parser.add_argument("--job-id", help="32 hexadecimal digits: a cluster takes a job id only once")
    parser.add_argument("--dry-run", action="store_true", help="print the execution plan, submit nothing")
    arguments = parser.parse_args()
    try:
        result = submit(
            load_config(arguments.config),
            restore_from=arguments.restore_from,
            job_id=arguments.job_id,
            dry_run=arguments.dry_run,
        )
    except ConfigError as error:
        print(f"configuration: {error}", file=sys.stderr)
        return 2
    except TopicChangedError as error:
        print(error, file=sys.stderr)
        return EXIT_CHECKPOINT
    print(result if arguments.dry_run else f"submitted job {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
