from __future__ import annotations

import os
from pathlib import Path

import pytest
from crypto_flink.state import State, StateError, StateStore, Submission, local_path, newest_restore_point
from hypothesis import given, settings
from hypothesis import strategies as st


def complete(directory: Path, at_s: int) -> Path:
    directory.mkdir(parents=True)
    (directory / "_metadata").write_bytes(b"x")
    os.utime(directory / "_metadata", (at_s, at_s))
    return directory


def submission(job_id: str) -> Submission:
    return Submission(job_id=job_id, submitted_at_ms=1, fingerprint="f", restored_from=None, reason="r")


def test_the_newest_complete_checkpoint_wins_across_jobs(tmp_path: Path) -> None:
    complete(tmp_path / "a" / "chk-10", 100)
    wanted = complete(tmp_path / "b" / "chk-2", 200)
    complete(tmp_path / "stranger" / "chk-99", 999)
    (tmp_path / "b" / "chk-3").mkdir()  # not complete: no _metadata
    empty = tmp_path / "b" / "chk-4"
    empty.mkdir()
    (empty / "_metadata").touch()
    (tmp_path / "b" / "shared").mkdir()
    found = newest_restore_point(tmp_path, ["a", "b", "gone"], [])
    assert found is not None
    assert found.path == wanted
    assert found.uri == wanted.as_uri()


def test_a_savepoint_competes_by_time(tmp_path: Path) -> None:
    checkpoint = complete(tmp_path / "a" / "chk-1", 100)
    savepoint = complete(tmp_path / "savepoints" / "savepoint-1", 150)
    uris = ["file:" + str(savepoint), "file:/gone"]
    assert newest_restore_point(tmp_path, ["a"], uris).path == savepoint  # type: ignore[union-attr]
    os.utime(checkpoint / "_metadata", (300, 300))
    assert newest_restore_point(tmp_path, ["a"], uris).path == checkpoint  # type: ignore[union-attr]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert newest_restore_point(tmp_path / "missing", ["a"], ["file:/missing"]) is None


@pytest.mark.parametrize("uri", ["file:/a/b", "file:///a/b", "/a/b"])
def test_flinks_paths_are_understood(uri: str) -> None:
    assert local_path(uri) == Path("/a/b")


@settings(deadline=None)  # each change is written through to the disk, and that takes its time
@given(st.lists(st.text("abcdef0123456789", min_size=1), max_size=5))
def test_state_survives_a_round_trip(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    store = StateStore(tmp_path_factory.mktemp("state"), "j")
    for job_id in ids:
        store.update(lambda state, job_id=job_id: state.with_submission(submission(job_id)))  # type: ignore[misc]
    assert [entry.job_id for entry in store.read().submissions] == ids


def test_the_list_of_submissions_does_not_grow_for_ever() -> None:
    state = State(job_name="j")
    for number in range(200):
        state = state.with_submission(submission(str(number)))
    assert len(state.submissions) == 50
    assert state.submissions[-1].job_id == "199"


def test_the_job_of_the_last_checkpoint_is_not_forgotten() -> None:
    state = State(job_name="j").with_submission(submission("owner"))
    state = state.model_copy(update={"last_checkpoint": "file:/state/owner/chk-7"})
    for number in range(200):
        state = state.with_submission(submission(str(number)))
    assert state.submission("owner") is not None
    assert len(state.submissions) == 51

    # Also of a checkpoint that was found in the directory, and never seen while its job ran.
    resumed = submission("b").model_copy(update={"restored_from": "file:/state/199/chk-1"})
    state = state.with_submission(resumed)
    for number in range(200, 400):
        state = state.with_submission(submission(str(number)))
    assert state.submission("199") is not None
    assert len(state.submissions) == 51


def test_what_belongs_to_another_topic_is_forgotten() -> None:
    state = State(job_name="j", savepoints=("file:/s",), last_checkpoint="file:/state/a/chk-7")
    state = state.with_submission(submission("a")).with_submission(submission("b"))
    state = state.with_topic("x")
    assert state.topic_id == "x"
    assert state.savepoints, "a state of a supervisor that did not know the topic"
    assert state.with_topic("x") == state
    other = state.with_topic("y")
    assert [entry.job_id for entry in other.submissions] == ["b"]
    assert (other.savepoints, other.last_checkpoint, other.topic_id) == ((), None, "y")


def test_one_process_at_a_time_changes_the_job(tmp_path: Path) -> None:
    store = StateStore(tmp_path, "j")
    with store.changing_job(block=True) as first, StateStore(tmp_path, "j").changing_job(block=False) as second:
        assert first is not None
        assert second is None
    with store.changing_job(block=False) as third:
        assert third is not None


def test_a_check_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StateStore(tmp_path, "j")
    store.check()
    assert not list(tmp_path.iterdir())
    store.update(lambda state: state)
    before = {path: path.stat() for path in tmp_path.iterdir()}
    store.check()
    assert {path: path.stat() for path in tmp_path.iterdir()} == before
    # Root may write anything, so that permissions alone would not show it.
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
    with pytest.raises(StateError, match="give it to this user"):
        store.check()


def test_only_one_supervisor_has_the_lock(tmp_path: Path) -> None:
    with StateStore(tmp_path, "j").exclusive():
        with pytest.raises(StateError, match="another supervisor"), StateStore(tmp_path, "j").exclusive():
            pass
        with StateStore(tmp_path, "other").exclusive():
            pass
    with StateStore(tmp_path, "j").exclusive():
        pass


def test_an_error_under_the_lock_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="from within"), StateStore(tmp_path, "j").exclusive():
        raise OSError("from within")


def test_a_damaged_state_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "j.json").write_text('{"version": 2}')
    store = StateStore(tmp_path, "j")
    with pytest.raises(StateError, match=r"j\.json"):
        store.update(lambda state: state)
    assert (tmp_path / "j.json").read_text() == '{"version": 2}'


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="mount the shared directory"):
        StateStore(tmp_path / "missing", "j").read()
