"""The local record of one run: a file of JSON lines beside a folder of artifacts.

Everything a run has to say is written here first, with its own timestamps. Training never waits
for MLflow and never loses a record to it: :mod:`breakhis_search.tracking.delivery` carries the
lines over, in order.

From :meth:`Journal.begin` to :meth:`Journal.finish` a journal belongs to the process that writes
it; other processes leave it alone.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from breakhis_search.durability import replace_file, sync, sync_tree
from breakhis_search.errors import DiskError, JournalError, TrackingError
from breakhis_search.tracking import keys
from breakhis_search.tracking.ownership import FolderLock
from breakhis_search.tracking.record_file import Record, RecordFile

RECORDS = "records.jsonl"
_CURSOR = "cursor"
_SET_ASIDE = "set_aside"
_DAMAGED = "records.damaged"
TAKEN_OVER = "another process went on with this run"
_MOMENT_S = 2.0
_DELIVERY_S = 60.0
"""How long to wait for who is delivering a journal just now: a file may be on its way."""


class Journal:
    """The journal of one run.

    Args:
        folder: Its folder, made if it is not there.

    Attributes:
        seconds_writing: What writing has taken by this object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = RecordFile(folder / RECORDS)
        self._lock = FolderLock(folder)
        self._delivery_lock = FolderLock(folder, "delivery.lock")
        self._held_back: list[bytes] | None = None
        self._is_once = False
        self._recorded: set[tuple[str, int]] = set()
        self._has_report = False
        self.seconds_writing = 0.0
        # No more than this: who delivers may be deleting the rest just now.
        with self.disk_errors():
            self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def uid(self) -> str:
        """The identity of the run, also a tag of it in MLflow."""
        return self.folder.name

    @property
    def artifacts(self) -> Path:
        """Folder of files that go with the run, laid out as they will be in MLflow."""
        return self.folder / "artifacts"

    @property
    def models(self) -> Path:
        """Folder of saved models that go with the run."""
        return self.folder / "models"

    def place_for_model(self, name: str) -> Path:
        """Return where to save a model: a folder that is not there, and nothing beside it.

        A process that was killed may have left half of one, or one that is being delivered.

        Raises:
            TrackingError: It is being delivered, and goes on being.
        """
        target = self.models / name
        if self.models.is_dir():
            with self.disk_errors(), self._nobody_delivering("an earlier model cannot be removed"):
                for left in (target, *self.models.glob(f"{name}.*")):
                    if left.is_file():
                        left.unlink()
                    shutil.rmtree(left, ignore_errors=True)
        return target

    @property
    def report(self) -> Path:
        """Folder of what a report is made from when it is delivered."""
        return self.folder / "report"

    @property
    def is_begun(self) -> bool:
        """Whether anything was ever recorded."""
        return self._records.exists

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turn what the disk refuses in the block into one :class:`DiskError`.

        Also for those who write artifacts and models into the journal's folders.
        """
        try:
            yield
        except OSError as error:
            raise DiskError(
                f"the journal {self.folder} cannot be written ({error.strerror or error})",
                remedy="free space or make the folder writable, then run the same command again;"
                " nothing recorded so far is lost",
            ) from error

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the journal during the block; yields ``False`` where another process holds it."""
        was_held = self._lock.is_held
        with self.disk_errors():
            is_ours = self._lock.acquire()
        try:
            yield is_ours
        finally:
            if not was_held:
                self._lock.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count the time of the block as writing what is recorded; see :meth:`disk_errors`."""
        start = time.perf_counter()
        try:
            with self.disk_errors():
                yield
        finally:
            self.seconds_writing += time.perf_counter() - start

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Be the only one to deliver during the block; yields ``False`` where another one does."""
        with self.disk_errors():
            is_ours = self._delivery_lock.acquire()
        try:
            yield is_ours
        finally:
            if is_ours:
                self._delivery_lock.release()

    def release(self) -> None:
        """Let others deliver the journal, however far it is."""
        self._lock.release()

    def begin(
        self,
        *,
        name: str,
        tags: Mapping[str, str],
        parent_uid: str | None,
        experiment: str,
        once: bool = False,
        turn: int = 0,
    ) -> None:
        """Record that the run exists and is running; until it ends, it is this process's.

        Args:
            name: Of the run.
            tags: To begin with.
            parent_uid: Of the run that it belongs to.
            experiment: In MLflow.
            once: Whether a metric that was recorded at a step before is not to be recorded there
                again: in a part of the run that was cut off, or that began anew in this process.
            turn: The how manyeth process this is that is at the run, see
                :class:`breakhis_search.study.leases.Leases`.

        Raises:
            TrackingError: Another process is writing it, or the disk refuses.
        """
        with self.disk_errors():
            is_ours = self._acquired_soon()
            self.artifacts.mkdir(exist_ok=True)
            if is_ours:
                (self.folder / _SET_ASIDE).unlink(missing_ok=True)
        if not is_ours:
            raise TrackingError(
                f"{name} is being run by another process in this folder",
                remedy="wait until that ends; to search at the same time, run in another folder or"
                " add --new",
            )
        try:
            lost = self._drop_damaged_lines()
        except TrackingError:
            self.release()
            raise
        self._is_once = once
        self._recorded = set(self._metrics_so_far()) if once else set()
        self._has_report = once and any(r.kind == "report" for r in self._records.read_from(0))
        body = {"name": name, "tags": dict(tags), "parent_uid": parent_uid, "turn": turn}
        self._write("run", {**body, "experiment": experiment, "time_ms": _now_ms()})
        if lost:
            self.set_tags({keys.RECORDS_LOST: str(lost)})

    def _acquired_soon(self) -> bool:
        """Take the journal; who only ends what dead processes left holds it for a moment."""
        return _acquired(self._lock, within_s=_MOMENT_S)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write the records of the block together at its end, however it ends."""
        self._held_back = []
        try:
            yield
        finally:
            lines, self._held_back = self._held_back, None
            self._append(b"".join(lines))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record hyperparameters."""
        self._write("params", {"params": {k: str(v) for k, v in params.items()}})

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record metrics at a step; all carry the time of this call."""
        new = {k: v for k, v in metrics.items() if (k, step) not in self._recorded}
        if not new:
            return
        if self._is_once:
            self._recorded |= {(name, step) for name in new}
        numbers = {k: float(v) for k, v in new.items()}
        self._write("metrics", {"metrics": numbers, "step": step, "time_ms": _now_ms()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""
        self._write("tags", {"tags": dict(tags)})

    def log_report(self) -> None:
        """Record that all is under :attr:`report` that pages and figures are to be made from.

        Who delivers makes them, and counts them as artifacts. Their metrics have no step twice: a
        report that was recorded in a part of the run that was cut off is not recorded again.
        """
        if not self._has_report:
            with self.disk_errors():
                self.report.mkdir(exist_ok=True)
            self._sync(self.report)
            self._write("report", {"time_ms": _now_ms()})

    def log_artifacts(self) -> None:
        """Record that the files now under :attr:`artifacts` are complete."""
        self._sync(self.artifacts)
        self._write("artifacts", {})

    def log_model(self, name: str, *, tags: Mapping[str, str]) -> None:
        """Record that the model saved under ``models/<name>``, or its parts, is complete."""
        self._sync(self.models / name)
        with self.writing():
            sync(self.models)
        self._write("model", {"name": name, "tags": dict(tags)})

    def finish(self, status: str) -> None:
        """Record the end, ``FINISHED``, ``KILLED`` or ``FAILED``, and give the journal up."""
        try:
            self._write("finish", {"status": status, "time_ms": _now_ms()})
        finally:
            self.release()

    @property
    def is_new_to_mlflow(self) -> bool:
        """Whether nothing of it was ever delivered."""
        return self._cursor() == 0

    @property
    def has_undelivered(self) -> bool:
        """Whether MLflow lacks anything of it that can be brought there."""
        try:
            return self.set_aside_because is None and next(self.undelivered(), None) is not None
        except JournalError:  # a damaged line: who delivers sets it aside
            return True

    @property
    def set_aside_because(self) -> str | None:
        """Why nothing more of it is delivered, or ``None``."""
        try:
            return (self.folder / _SET_ASIDE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def set_aside(self, why: str) -> None:
        """Deliver nothing more of it, until it begins again or :meth:`take_up` is asked for."""
        with self.disk_errors():
            replace_file(self.folder / _SET_ASIDE, why)

    def take_up(self) -> None:
        """Have it delivered again after it was set aside."""
        with self.disk_errors():
            (self.folder / _SET_ASIDE).unlink(missing_ok=True)

    @property
    def first_tags(self) -> Mapping[str, str]:
        """The tags that the run began with; none where the first line is damaged."""
        with suppress(JournalError):
            for record in self._records.read_from(0):
                return dict(record.body.get("tags", {}))
        return {}

    @property
    def turns(self) -> list[int]:
        """Of the processes that wrote it, one after the other, the how manyeth each was."""
        return [int(r.body.get("turn", 0)) for r in self._records.read_from(0) if r.kind == "run"]

    @property
    def knows_all_turns(self) -> bool:
        """Whether all processes that were ever at the run wrote into this journal."""
        return set(range(1, self.turn + 1)) <= set(self.turns)

    @property
    def turn(self) -> int:
        """The how manyeth process wrote it last; 0 where nobody counted."""
        return max(self.turns, default=0)

    def undelivered(self) -> Iterator[Record]:
        """Yield the records behind the cursor; a half-written last line does not count."""
        return self._records.read_from(self._cursor())

    def _metrics_so_far(self) -> Iterator[tuple[str, int]]:
        """Name and step of every metric."""
        for record in self._records.read_from(0):
            if record.kind == "metrics":
                yield from ((name, record.body["step"]) for name in record.body["metrics"])

    def is_finished(self) -> bool:
        """Tell whether the last record is the end of the run, or another process has taken it."""
        is_over = not self.is_begun or b'"kind": "finish"' in self._records.last_line()
        return is_over or self.set_aside_because == TAKEN_OVER

    def was_interrupted(self) -> bool:
        """Tell whether the run, so far, ended by an interruption: it may go on."""
        states = [
            record.body["tags"][keys.STATE]
            for record in self._records.read_from(0)
            if record.kind in ("run", "tags") and keys.STATE in record.body["tags"]
        ]
        return bool(states) and states[-1] == "interrupted"

    def end_cut_off(self, reason: str | None = None) -> None:
        """Record the end of a run whose process could not do it any more.

        Args:
            reason: Why it will not go on; without one it may.
        """
        state = "failed" if reason else "interrupted"
        self.set_tags({keys.STATE: state, keys.FAILURE: reason or "its process ended"})
        self.finish("FAILED")

    def drop_delivered_files(self) -> None:
        """Delete the files of a run that has ended and is delivered: MLflow has them now."""
        if self.is_finished() and not self.has_undelivered:
            for folder in (self.artifacts, self.models, self.report):
                shutil.rmtree(folder, ignore_errors=True)

    def mark_delivered(self, record: Record) -> None:
        """Move the cursor behind a record."""
        with self.disk_errors():
            replace_file(self.folder / _CURSOR, str(record.end))

    def _sync(self, folder: Path) -> None:
        """See to it that files are on the disk before a record says so."""
        with self.writing():
            sync_tree(folder)

    def _drop_damaged_lines(self) -> int:
        """Leave out lines that nobody can read, and keep them beside; return how many those were.

        One of them would be in the way of this run for ever, and of who looks for work.
        """
        if not self.is_begun:
            return 0
        with self.disk_errors():
            kept, lost = self._records.readable()
            if lost:
                self._rewrite(kept)
        return lost

    def _rewrite(self, records: str) -> None:
        """Put other records in place of all; who delivers would go on at a wrong place of them.

        Raises:
            TrackingError: It is being delivered, and goes on being.
        """
        with self._nobody_delivering("it is damaged and cannot be mended"):
            shutil.copyfile(self._records.path, self.folder / _DAMAGED)
            replace_file(self.folder / _CURSOR, "0")  # what is delivered twice is there once
            replace_file(self._records.path, records)

    @contextmanager
    def _nobody_delivering(self, what: str) -> Iterator[None]:
        """See to it that nobody delivers during the block.

        Args:
            what: What cannot be done where somebody goes on delivering.
        """
        if not _acquired(self._delivery_lock, within_s=_DELIVERY_S):
            raise TrackingError(
                f"the journal {self.folder} is being delivered: {what}",
                remedy="run the same command again when MLflow has answered",
            )
        try:
            yield
        finally:
            self._delivery_lock.release()

    def _cursor(self) -> int:
        try:
            return int((self.folder / _CURSOR).read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _write(self, kind: str, body: Mapping[str, Any]) -> None:
        line = (json.dumps({"kind": kind, **body}) + "\n").encode()
        if self._held_back is not None:
            self._held_back.append(line)
        else:
            self._append(line)

    def _append(self, lines: bytes) -> None:
        with self.writing():
            self._records.append(lines)


def _acquired(lock: FolderLock, *, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not lock.acquire():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
