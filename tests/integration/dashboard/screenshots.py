#!/usr/bin/env python3
"""Take the pictures of the dashboard in docs/images anew.

    make lab && make ui
    PYTHONPATH=apps/dashboard/src .venv/bin/python tests/integration/dashboard/screenshots.py \\
        --uplot FOLDER_OR_JAR --lab http://localhost:8050

What a lab that is well shows can come from a running one (--lab). The other pictures come from a fake lab that stands
still at one moment. Look at them before they are committed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from browser import REPOSITORY, chromium, dashboard

NOW_S = 1_795_644_021
DARK = "--blink-settings=preferredColorScheme=0"
WELL = "healthy"
# name => state of the lab, width, height, options of Chromium
PICTURES = {
    "dashboard": (WELL, 1920, 1080, ()),
    "dashboard-dark": (WELL, 1920, 1080, (DARK,)),
    "dashboard-engine-down": ("flink_down", 1280, 1420, ()),
    "dashboard-empty": ("empty", 1280, 1000, ()),
    "dashboard-prometheus-away": ("prometheus_away", 1280, 1000, (DARK,)),
    "dashboard-database-away": ("database_away", 1280, 1000, ()),
    "dashboard-narrow": (WELL, 400, 1400, ()),
}
MAX_BYTES = 200_000


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uplot", type=Path, required=True, help="uPlot's WebJar, or the folder it is in")
    parser.add_argument("--lab", metavar="URL", help="the dashboard of a running lab")
    given = parser.parse_args()
    folder = REPOSITORY / "docs" / "images"
    folder.mkdir(exist_ok=True)
    for name, (state, width, height, options) in PICTURES.items():
        target = folder / f"{name}.png"
        # Chromium writes none of a page that it cannot reach, and says nothing.
        target.unlink(missing_ok=True)
        if given.lab and state == WELL:
            chromium(given.lab, width, height, f"--screenshot={target}", *options)
        else:
            with dashboard(given.uplot, f"--state={state}", f"--now={NOW_S}") as (url, _):
                chromium(url, width, height, f"--screenshot={target}", *options)
        size = target.stat().st_size
        print(f"{target.relative_to(REPOSITORY)}: {size:,} bytes{' TOO LARGE' if size > MAX_BYTES else ''}")


if __name__ == "__main__":
    main()
