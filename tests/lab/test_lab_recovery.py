"""After a kill and after a restart of each node, nothing is lost and nothing is doubled."""

from __future__ import annotations

import pytest
from live_lab import Lab, screen

pytestmark = pytest.mark.disruptive


def main_pid(lab: Lab, node: str, unit: str) -> int:
    return int(lab.host(node).check_output(f"systemctl show {unit} -p MainPID --value"))


@pytest.mark.parametrize(
    ("group", "unit"), [("producer", "producer"), ("submitter", "spark-job"), ("submitter", "flink-job")]
)
def test_killed_service_comes_back(lab: Lab, group: str, unit: str) -> None:
    node = lab.group(group)[0]
    before = main_pid(lab, node, unit)
    lab.host(node).check_output(f"sudo kill -9 {before}")
    lab.wait_for(lambda: main_pid(lab, node, unit) not in {0, before}, f"a new process of {unit}")
    lab.wait_until_rows_flow()
    lab.assert_all_accounted_for()


def test_killed_flink_job_comes_back_from_its_checkpoint(lab: Lab) -> None:
    # The job lives in the task manager's process, and its coordinator in the job manager's.
    for group, unit in (("flink_taskmanager", "flink-taskmanager"), ("flink_jobmanager", "flink-jobmanager")):
        node = lab.group(group)[0]
        lab.host(node).check_output(f"sudo kill -9 {main_pid(lab, node, unit)}")
    lab.wait_for(lambda: lab.flink_jobs_left() == ["RUNNING"], "exactly one running Flink job", 240)
    lab.wait_until_rows_flow()
    lab.assert_all_accounted_for()


def test_each_node_in_turn_restarts(lab: Lab) -> None:
    for node in lab.nodes:
        started = lab.host(node).check_output("stat -c %Y /proc/1")
        state = lab.host(node).check_output("findmnt -n -o SOURCE,FSTYPE /srv/lab-state")
        # The connection ends before the command does.
        screen.on_node(lab.context, node, "sudo systemctl reboot")

        def back(node: str = node, started: str = started) -> bool:
            done = screen.on_node(lab.context, node, "stat -c %Y /proc/1; systemctl is-system-running", timeout_s=15)
            return done.returncode == 0 and done.stdout.split() != [] and done.stdout.split()[0] != started

        lab.wait_for(back, f"{node} to boot", 180)
        lab.wait_for(
            lambda: all(
                state == "active"
                for units in screen.service_states(lab.context, lab.inventory).values()
                for state in units.values()
            ),
            f"every service after the restart of {node}",
            240,
        )
        assert lab.host(node).check_output("findmnt -n -o SOURCE,FSTYPE /srv/lab-state") == state
    lab.wait_until_rows_flow()
    lab.assert_all_accounted_for(300)
