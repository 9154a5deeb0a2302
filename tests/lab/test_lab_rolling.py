"""Restarts on request and by a changed setting: what it concerns, one node at a time, and nothing is lost."""

from __future__ import annotations

import itertools
import re

import pytest
from live_lab import Lab, restarted

pytestmark = pytest.mark.disruptive

# service => units that restart with it; the job of an engine stands still while its cluster restarts.
UNITS = {
    "kafka": {"kafka"},
    "spark": {"spark-master", "spark-worker", "spark-job"},
    "flink": {"flink-jobmanager", "flink-taskmanager", "flink-job"},
}


def nodes_with(lab: Lab, units: set[str]) -> set[tuple[str, str]]:
    return {(node, unit) for node, unit in lab.started() if unit in units}


def resumptions(lab: Lab) -> set[str]:
    """The savepoints that the job was resumed from; a file goes as soon as a checkpoint after it is complete."""
    return set(re.findall(r"/savepoints/(savepoint-\S+)", lab.journal(lab.group("submitter")[0], "flink-job")))


def test_unknown_service_is_refused(lab: Lab) -> None:
    before = lab.started()
    done = lab.playbook("restart", service="kafca")
    assert done.returncode != 0
    assert "names no service: give one of kafka, postgres," in " ".join(done.stdout.split())
    assert restarted(before, lab.started()) == set()


@pytest.mark.parametrize(
    "service",
    [service if service == "flink" else pytest.param(service, marks=pytest.mark.extended) for service in UNITS],
)
def test_cluster_restarts_one_node_at_a_time(lab: Lab, service: str) -> None:
    before, saved = lab.started(), resumptions(lab)
    done = lab.playbook("restart", service=service)
    assert done.returncode == 0, done.stdout[-4000:]
    after = lab.started()
    assert restarted(before, after) == nodes_with(lab, UNITS[service])
    # The next node's service starts only when the one before has been up for some time: its health was asked for.
    starts_us = sorted(after[key] for key in nodes_with(lab, UNITS[service] - {f"{service}-job"}))
    nodes = {node for node, _ in nodes_with(lab, UNITS[service] - {f"{service}-job"})}
    if len(nodes) == len(starts_us):
        assert all(later - earlier > 1_000_000 for earlier, later in itertools.pairwise(starts_us))
    if service == "flink":
        assert len(resumptions(lab) - saved) == 1, "the job did not stop with a savepoint and go on from it"
    lab.assert_all_accounted_for()


@pytest.mark.extended
def test_a_changed_setting_restarts_what_it_concerns(lab: Lab) -> None:
    before = lab.started()
    done = lab.playbook("site", kafka_heap_mib="520")
    assert done.returncode == 0, done.stdout[-4000:]
    assert restarted(before, lab.started()) == nodes_with(lab, {"kafka"})
    for node in lab.group("kafka"):
        assert lab.host(node).run("pgrep -f -- '-Xmx520m.* kafka[.]Kafka'").rc == 0
    # As it was, for whoever comes next.
    assert lab.playbook("site").returncode == 0
    lab.assert_all_accounted_for()
