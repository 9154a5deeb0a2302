"""Arguments and output of tools/lab/reset.py."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import reset
import screen
import yaml
from context import Context, LabError

REPOSITORY = Path(__file__).resolve().parents[3]
PLAYBOOK = REPOSITORY / "ansible" / "playbooks" / "reset.yml"


def options(service: str | None, confirm: str | None) -> argparse.Namespace:
    return argparse.Namespace(service=service, confirm=confirm)


@pytest.mark.parametrize("service", reset.SERVICES)
def test_a_confirmed_reset_is_done(lab: Context, service: str) -> None:
    reset.check_options(lab, options(service, "lab"))


@pytest.mark.parametrize("service", [None, "", "postgres", "Spark"])
def test_an_unknown_service_lists_the_known_ones(lab: Context, service: str | None) -> None:
    with pytest.raises(LabError) as caught:
        reset.check_options(lab, options(service, "lab"))
    text = str(caught.value)
    assert f"SERVICE={service or ''}:" in text
    assert all(f"  {name} " in text for name in reset.SERVICES)


@pytest.mark.parametrize("confirm", [None, "", "yes", "lab", "lab-20"])
def test_what_is_not_confirmed_by_name_is_not_done(checkout: Path, confirm: str | None) -> None:
    assert checkout.is_dir()
    with pytest.raises(LabError) as caught:
        reset.check_options(Context(target="lxd", lab="lab-2"), options("all", confirm))
    text = str(caught.value)
    assert "This deletes, in the lab 'lab-2': the topic with all its messages" in text
    assert "make reset SERVICE=all CONFIRM=lab-2 LAB=lab-2" in text


def test_a_refused_reset_looks_at_no_lab(lab: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "inventory", lambda _: pytest.fail("the lab was asked"))
    with pytest.raises(LabError):
        reset.reset(lab, options("flink", "no"))
    assert not lab.lab_dir.exists()


def test_what_was_deleted_is_found_in_the_output() -> None:
    output = (
        "TASK [schema : Say what was deleted of schema] ***\n"
        "ok: [postgres-1] => \n    msg:\n    - Deleted 575 rows of crypto_prices_flink\n"
        "    - 'Deleted 0 of flink''s rejected_messages'\n    - Kept 3 events that wait\n"
        "TASK [Deleted nothing] ***\n"
    )
    assert reset.deleted(output) == [
        "Deleted 575 rows of crypto_prices_flink", "Deleted 0 of flink''s rejected_messages", "Kept 3 events that wait",
    ]  # fmt: skip


def test_the_playbook_knows_the_same_services() -> None:
    plays = yaml.safe_load(PLAYBOOK.read_text())
    assert list(plays[0]["vars"]["reset_deletes"]) == list(reset.SERVICES)


def test_nothing_goes_on_after_a_failure() -> None:
    """The order is what makes a reset safe: no node may run ahead, and none may go on without another."""
    for play in yaml.safe_load(PLAYBOOK.read_text()):
        assert play["strategy"] == "ansible.builtin.linear"
        assert play["any_errors_fatal"] is True
