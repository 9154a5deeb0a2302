"""What the supervisor remembers in the shared directory, and the checkpoints it finds there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, ValidationError

# Older ones have been replaced by checkpoints of younger ones long since, save that of the last checkpoint.
_SUBMISSIONS_KEPT = 50


class StateError(Exception):
    """The shared state cannot be read or written; the text says what to do."""


class Submission(BaseModel):
    """One time the job was given to a cluster. It is written down before, so that no crash in between can hide it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    submitted_at_ms: int
    # None: the job was found running and is not of this supervisor's making.
    fingerprint: str | None
    restored_from: str | None
    reason: str


class State(BaseModel):
    """The state file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job_name: str
    desired: Literal["running", "stopped"] = "running"
    submissions: tuple[Submission, ...] = ()
    savepoints: tuple[str, ...] = ()
    # The last complete checkpoint seen. If it is there no more and nothing younger is, the shared directory is not
    # what it was, and starting from scratch would hide that.
    last_checkpoint: str | None = None
    # Of the topic that the last submission was to read; a topic that is created anew has another one.
    topic_id: str | None = None

    def with_submission(self, submission: Submission) -> State:
        """Return the state after a submission.

        The job of the last checkpoint is never forgotten: however many submissions fail, its directory is where a
        checkpoint younger than the last one seen would be. What the job is to resume from has been seen, too.
        """
        last_checkpoint = submission.restored_from or self.last_checkpoint
        owner = local_path(last_checkpoint).parent.name if last_checkpoint else None
        entries = (*self.submissions, submission)
        old, recent = entries[:-_SUBMISSIONS_KEPT], entries[-_SUBMISSIONS_KEPT:]
        kept = tuple(entry for entry in old if entry.job_id == owner)
        return self.model_copy(update={"submissions": (*kept, *recent), "last_checkpoint": last_checkpoint})

    def with_topic(self, topic_id: str) -> State:
        """Return the state for a job that reads this topic: without what belongs to another one, save the last job."""
        if self.topic_id in {None, topic_id}:
            return self.model_copy(update={"topic_id": topic_id})
        return State(job_name=self.job_name, desired=self.desired, submissions=self.submissions[-1:], topic_id=topic_id)

    def submission(self, job_id: str) -> Submission | None:
        """Return what is known of a job."""
        return next((entry for entry in self.submissions if entry.job_id == job_id), None)


class StateStore:
    """The state file of one job name, with a lock around each change and one for the supervisor's lifetime."""

    def __init__(self, directory: Path, job_name: str) -> None:
        self._directory = directory
        self._job_name = job_name
        self._path = directory / f"{job_name}.json"

    def read(self) -> State:
        """Return the state; a new one where there is no file.

        Raises:
            StateError: the directory is missing or the file is not a state file.
        """
        if not self._directory.is_dir():
            raise StateError(f"{self._directory} is missing: mount the shared directory, or create it for this user")
        try:
            return State.model_validate_json(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return State(job_name=self._job_name)
        except (OSError, ValidationError, UnicodeDecodeError) as error:
            first_line = str(error).splitlines()[0]
            raise StateError(
                f"{self._path} cannot be read ({first_line}): restore it, or delete it to start from scratch"
            ) from error

    def update(self, change: Callable[[State], State]) -> State:
        """Apply `change` to the state of this moment and write the result, atomically.

        Raises:
            StateError: see `read`; or the directory cannot be written.
        """
        try:
            with _locked(self._path.with_suffix(".write-lock"), block=True):
                state = change(self.read())
                temporary = self._path.with_suffix(".new")
                with temporary.open("w", encoding="utf-8") as file:
                    file.write(state.model_dump_json(indent=1))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self._path)
                return state
        except OSError as error:
            raise StateError(f"{self._directory} cannot be written ({error}): give it to this user") from error

    def check(self) -> None:
        """Check that the state can be read and, as far as permissions tell, written; change nothing.

        Raises:
            StateError: see `update`.
        """
        self.read()
        files = [path for path in self._directory.glob(f"{self._job_name}.*") if path.suffix != ".json"]
        refused = [path for path in [self._directory, *files] if not os.access(path, os.W_OK)]
        if refused or not os.access(self._directory, os.X_OK):
            listed = ", ".join(str(path) for path in refused or [self._directory])
            raise StateError(f"{listed} cannot be written: give it to this user")

    @contextmanager
    def changing_job(self, *, block: bool) -> Iterator[IO[str] | None]:
        """Hold the right to submit or stop the job; gives the lock file, which a child process may inherit.

        Gives None where another process has the right, unless told to wait for it with `block`.

        Raises:
            StateError: the directory cannot be written.
        """
        with ExitStack() as stack:
            file: IO[str] | None
            try:
                file = stack.enter_context(_locked(self._path.with_suffix(".job-lock"), block=block))
            except BlockingIOError:
                file = None
            except OSError as error:
                raise StateError(f"{self._directory} cannot be written ({error}): give it to this user") from error
            yield file

    @contextmanager
    def exclusive(self) -> Iterator[IO[str]]:
        """Hold the right to supervise this job name; gives the lock file, which a child process may inherit.

        Raises:
            StateError: another supervisor has it, or the directory cannot be written.
        """
        stack = ExitStack()
        try:
            file = stack.enter_context(_locked(self._path.with_suffix(".lock"), block=False))
        except BlockingIOError as error:
            raise StateError(f"another supervisor watches {self._job_name}: stop that one first") from error
        except OSError as error:
            raise StateError(f"{self._directory} cannot be written ({error}): give it to this user") from error
        with stack:
            yield file


@contextmanager
def _locked(path: Path, *, block: bool) -> Iterator[IO[str]]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
        yield file


@dataclass(frozen=True)
class RestorePoint:
    """A complete checkpoint or savepoint."""

    path: Path
    completed_at_ns: int

    @property
    def uri(self) -> str:
        """The path as Flink wants it."""
        return self.path.as_uri()


def local_path(uri: str) -> Path:
    """Return the path of a `file:` URI, or of a plain path."""
    parts = urlparse(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(uri)


def _restore_point(directory: Path) -> RestorePoint | None:
    # Flink moves _metadata into place as its last step, so the file's presence is the checkpoint's completion.
    try:
        metadata = (directory / "_metadata").stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return RestorePoint(directory, metadata.st_mtime_ns) if metadata.st_size > 0 else None


def newest_restore_point(
    checkpoint_dir: Path, job_ids: Iterable[str], savepoints: Iterable[str]
) -> RestorePoint | None:
    """Return the youngest complete checkpoint of these jobs or savepoint of these paths, by time of completion.

    Raises:
        StateError: a directory is there but cannot be read.
    """
    candidates: list[RestorePoint | None] = []
    try:
        for job_id in job_ids:
            candidates.extend(_restore_point(path) for path in (checkpoint_dir / job_id).glob("chk-*"))
        candidates.extend(_restore_point(local_path(uri)) for uri in savepoints)
    except OSError as error:
        raise StateError(f"cannot look for checkpoints ({error}): let this user read {checkpoint_dir}") from error
    return max(filter(None, candidates), key=lambda point: point.completed_at_ns, default=None)
