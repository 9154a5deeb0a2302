"""`reset`: begin an engine, the topic, or the whole pipeline anew."""

from __future__ import annotations

import argparse
import re

import pipeline
import screen
from context import REPOSITORY, Context, LabError

# service => what a reset of it deletes; ansible/playbooks/reset.yml does it.
SERVICES = {
    "spark": "Spark's checkpoints, rows, candles and rejects; it then reads the topic from its beginning again",
    "flink": "Flink's checkpoints, savepoints, rows, candles and rejects; "
    "it then reads the topic from its beginning again",
    "kafka": "the topic with all its messages, both engines' state and rows, and the producer's counts; "
    "events that wait in the producer's spool go to the new topic",
    "all": "the topic with all its messages, both engines' state and rows, and the producer's spool with its counts "
    "and the events that wait in it",
}


def check_options(context: Context, options: argparse.Namespace) -> None:
    """Refuse an unknown service, and a reset that is not confirmed, before anything is changed."""
    if options.service not in SERVICES:
        listed = "\n".join(f"  {name:<6} deletes {deleted}" for name, deleted in SERVICES.items())
        raise LabError(f"SERVICE={options.service or ''}: say which to reset. Nothing was changed.\n{listed}")
    if options.confirm != context.lab:
        lab = "" if context.lab == "lab" else f" LAB={context.lab}"
        raise LabError(
            f"This deletes, in the lab '{context.lab}': {SERVICES[options.service]}.\n"
            f"Nothing was changed. If that is wanted: make reset SERVICE={options.service} CONFIRM={context.lab}{lab}"
        )


def deleted(output: str) -> list[str]:
    """Return what the playbook says to have deleted or kept, in its order."""
    return re.findall(r"^\s*- ['\"]?((?:Deleted|Kept) [^\n]*?)['\"]?$", output, re.MULTILINE)


def reset(context: Context, options: argparse.Namespace) -> None:
    """Run reset.yml, say what it has deleted, and wait for rows from both engines."""
    check_options(context, options)
    screen.inventory(context)
    with context.locked():
        output = context.step(
            f"reset {options.service} (ansible-playbook ansible/playbooks/reset.yml)",
            ["ansible-playbook", str(REPOSITORY / "ansible" / "playbooks" / "reset.yml"),
             "-e", f"service={options.service}", "-e", f"confirm={options.confirm}"],
            log="reset",
            failed="The reset was not completed. Run it again once the cause is gone: it goes on from where it is.",
            env={"ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        for line in deleted(output):
            print(f"         {line}", flush=True)
        pipeline.wait_for_rows(context)
    lab = "" if context.lab == "lab" else f" LAB={context.lab}"
    print(f"\nRows flow again; `make audit{lab}` compares producer, topic and both tables.")
