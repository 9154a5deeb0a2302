#!/usr/bin/env python3
"""Take the pictures of the dashboard in docs/images anew, over a fake lab that stands still at one moment.

    PYTHONPATH=apps/dashboard/src .venv/bin/python tests/integration/dashboard/screenshots.py --uplot FOLDER_OR_JAR

Look at them before they are committed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from browser import REPOSITORY, chromium, dashboard

NOW_S = 1_795_644_021
DARK = "--blink-settings=preferredColorScheme=0"
# name => state of the lab, width, height, options of Chromium
PICTURES = {
    "dashboard": ("healthy", 1920, 1080, ()),
    "dashboard-dark": ("healthy", 1920, 1080, (DARK,)),
    "dashboard-engine-down": ("flink_down", 1280, 1420, ()),
    "dashboard-empty": ("empty", 1280, 1000, ()),
    "dashboard-prometheus-away": ("prometheus_away", 1280, 1000, (DARK,)),
    "dashboard-database-away": ("database_away", 1280, 1000, ()),
    "dashboard-narrow": ("healthy", 400, 1400, ()),
}
MAX_BYTES = 200_000


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uplot", type=Path, required=True, help="uPlot's WebJar, or the folder it is in")
    uplot = parser.parse_args().uplot
    folder = REPOSITORY / "docs" / "images"
    folder.mkdir(exist_ok=True)
    for name, (state, width, height, options) in PICTURES.items():
        target = folder / f"{name}.png"
        with dashboard(uplot, f"--state={state}", f"--now={NOW_S}") as (url, _):
            chromium(url, width, height, f"--screenshot={target}", *options)
        size = target.stat().st_size
        print(f"{target.relative_to(REPOSITORY)}: {size:,} bytes{' TOO LARGE' if size > MAX_BYTES else ''}")


if __name__ == "__main__":
    main()
