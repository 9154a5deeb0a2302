#!/usr/bin/env python3
"""Write the SHA-256 of the jars that the pinned POMs resolve to (`make checksums`), to be reviewed and committed."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROLES = Path(__file__).resolve().parents[1] / "ansible" / "roles"


def main() -> int:
    """Resolve each POM into an empty folder and write its list of sums."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for pom in sorted([*ROLES.glob("artifacts/files/*/pom.xml"), *ROLES.glob("*/molecule/*/files/pom.xml")]):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime",
                 f"-DoutputDirectory={folder}"],
                check=True,
            )  # fmt: skip
            sums = [
                f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n"
                for jar in sorted(Path(folder).glob("*.jar"))
            ]
        target = pom.with_name("SHA256SUMS")
        target.write_text("".join(sums))
        print(f"{target.parent.relative_to(ROLES)}: {len(sums)} jars")
    return 0


if __name__ == "__main__":
    sys.exit(main())
