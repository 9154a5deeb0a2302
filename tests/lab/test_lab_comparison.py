"""The comparison's own look at the running lab: equal terms for both engines, and nothing in the way of a run."""

from __future__ import annotations

import sys

import pytest
from live_lab import REPOSITORY, Lab

sys.path.insert(0, str(REPOSITORY / "apps" / "compare" / "src"))

from compare.parity import violations
from compare.sshlab import SshLab

EVENTS = 10_000


def test_engines_run_on_equal_terms(lab: Lab) -> None:
    if len(lab.group("spark_worker")) > 1:
        pytest.skip("the comparison is of one worker against one task manager")
    seen = SshLab(lab.context)
    # Pages of a driver or a job manager that has just come up may lack something yet; terms that differ stay so.
    spark, flink = lab.wait_for(
        lambda: (seen.facts("spark"), seen.facts("flink")), "what both engines say of themselves"
    )
    assert (spark.engine, flink.engine) == ("spark", "flink")
    assert violations(spark, flink) == []


def test_nothing_keeps_a_comparison_from_starting(lab: Lab) -> None:
    def nothing() -> bool:
        problems = SshLab(lab.context).problems(EVENTS)
        assert problems == []
        return True

    lab.wait_for(nothing, "the lab to be ready for a comparison")
