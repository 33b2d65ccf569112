"""What a run has reached, on disk: its finished folds, and where the one at work stands.

Written by a thread beside the training; of states that come faster than the disk takes them only
the newest is written. A file counts once it is complete: written aside, flushed, renamed. There is
no pickle in it. A run's files are deleted when it ends, so that the disk holds one state for every
run that is at work or was cut off.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import zipfile
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from breakhis_search.errors import DiskError
from breakhis_search.training.results import EpochReport, FoldResult
from breakhis_search.training.state import (
    FoldState,
    Part,
    StateMismatchError,
    places_of,
    snapshot_from,
)

_GIVEN_BACK = "given_back"
_SECONDS = "seconds.json"
FORMAT = 2
"""Of the files; those of another format are not read."""

Arrays = Mapping[str, npt.NDArray[Any]]


class CheckpointFiles:
    """Writes checkpoints in a thread of its own, the newest content of each file.

    Args:
        folder: Of all runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._lock = threading.Lock()
        self._waiting: dict[Path, tuple[Arrays, Mapping[str, Any]]] = {}
        self._pending: list[Future[None]] = []

    def of(self, uid: str) -> RunCheckpoint:
        """Return the checkpoint of a run."""
        return RunCheckpoint(self, self._folder / uid)

    def write(self, file: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Have a file written soon.

        Raises:
            DiskError: The disk refused what was to be written before.
        """
        self._raise_refusal(wait=False)
        with self._lock:
            is_new = file not in self._waiting
            self._waiting[file] = (arrays, facts)
            if is_new:
                self._pending.append(self._pool.submit(self._do, file))

    def delete(self, file: Path) -> None:
        """Have a file deleted, after all that was to be written before; it is not written itself.

        Raises:
            DiskError: As for :meth:`write`.
        """
        self._raise_refusal(wait=False)
        with self._lock:
            self._waiting.pop(file, None)
            self._pending.append(self._pool.submit(file.unlink, missing_ok=True))

    def sweep(self, ended: Collection[str]) -> None:
        """Delete what runs left that have ended: their process was killed before it could.

        Args:
            ended: Their uids.
        """
        for found in self._folder.iterdir() if self._folder.is_dir() else ():
            if found.name in ended:
                shutil.rmtree(found, ignore_errors=True)

    def settle(self) -> None:
        """Wait until everything is written.

        Raises:
            DiskError: The disk refused.
        """
        self._raise_refusal(wait=True)

    def _raise_refusal(self, *, wait: bool) -> None:
        with self._lock:
            ready = [future for future in self._pending if wait or future.done()]
            self._pending = [future for future in self._pending if future not in ready]
        for future in ready:
            try:
                future.result()
            except OSError as error:
                raise DiskError(
                    f"the checkpoints {self._folder} cannot be written ({error.strerror or error})",
                    remedy="free space or make the folder writable, then run the same command"
                    " again; nothing recorded so far is lost",
                ) from error

    def _do(self, file: Path) -> None:
        with self._lock:
            wanted = self._waiting.pop(file, None)
        if wanted is None:  # it is to be deleted
            return
        arrays, facts = wanted
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part")
        text = json.dumps({"format": FORMAT, **facts}).encode()
        content: dict[str, Any] = {"facts": np.frombuffer(text, np.uint8), **arrays}
        try:
            with aside.open("wb") as target:
                np.savez(target, **content)
                target.flush()
                os.fsync(target.fileno())
            aside.replace(file)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


class RunCheckpoint:
    """The checkpoint of one run, by part: a fold, or a fold of a repetition.

    Args:
        files: Writes them.
        folder: Of this run.
    """

    def __init__(self, files: CheckpointFiles, folder: Path) -> None:
        self._files = files
        self._folder = folder

    def keep_state(self, part: str, state: FoldState) -> None:
        """Keep where a fold stands, in place of where it stood before."""
        arrays = {f"phase/{name}": value for name, value in state.phase.arrays.items()}
        arrays |= {f"best/{name}": value for name, value in state.best.arrays.items()}
        facts = {
            "span": state.span,
            "history": [asdict(report) for report in state.history],
            "phase": state.phase.facts,
            "best": state.best.facts,
        }
        self._files.write(self._state_file(part), arrays, facts)

    def state(self, part: str) -> FoldState | None:
        """Return where a fold stood; ``None`` where it was not begun or is finished."""
        self._files.settle()
        found = _read(self._state_file(part))
        if found is None:
            return None
        arrays, facts = found
        return FoldState(
            span=facts["span"],
            history=_reports(facts["history"]),
            phase=Part(_under("phase/", arrays), facts["phase"]),
            best=Part(_under("best/", arrays), facts["best"]),
        )

    def keep_fold(self, part: str, result: FoldResult, core: Any, *, weights: bool) -> None:
        """Keep a finished fold.

        Args:
            part: Its name.
            result: What came of it.
            core: The model it is of.
            weights: Whether its weights will be asked for.
        """
        arrays = {}
        if weights:
            arrays = {f"kept/{k}": v for k, v in places_of(core, result.kept).items()}
        if result.logits is not None:
            arrays["logits"] = result.logits
        history = [asdict(report) for report in result.history]
        self._files.write(
            self._fold_file(part), arrays, {"history": history, "best_epoch": result.best_epoch}
        )
        self._files.delete(self._state_file(part))

    def fold(self, part: str, core: Any) -> FoldResult | None:
        """Return a finished fold; ``None`` where it is not finished, or of another graph."""
        found = _read(self._fold_file(part))
        if found is None:
            return None
        arrays, facts = found
        try:
            kept = snapshot_from(core, _under("kept/", arrays))
        except StateMismatchError:
            return None
        return FoldResult(
            _reports(facts["history"]), facts["best_epoch"], arrays.get("logits"), kept
        )

    def epochs(self) -> int:
        """Return how many epochs, over all its folds, need not be trained again."""
        files = set(self._folder.glob("*.npz"))
        # A process may have been killed between the end of a fold and that of its last state.
        files -= {file.with_suffix(".state.npz") for file in files}
        found = [_read(file, only=()) for file in files]
        return sum(len(facts["history"]) for _, facts in filter(None, found))

    def note_seconds(self, seconds: Mapping[str, float]) -> None:
        """Keep what the run has taken so far, by phase, in place of what was known before.

        Not flushed, so that an epoch does not wait for the disk: a process that is killed loses
        nothing by it, and after a power cut these seconds alone may be missing.
        """
        file = self._folder / _SECONDS
        aside = file.with_suffix(".part")
        with suppress(OSError):  # a disk that is full shows itself where results are written
            self._folder.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(dict(seconds)), encoding="utf-8")
            aside.replace(file)

    def seconds(self) -> dict[str, float]:
        """Return what :meth:`note_seconds` kept; nothing where the run was never begun here."""
        try:
            known = json.loads((self._folder / _SECONDS).read_text(encoding="utf-8"))
            return {str(phase): float(spent) for phase, spent in known.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def note_given_back(self) -> None:
        """Keep that its process left it on purpose, where the database cannot be told so."""
        with suppress(OSError):  # then it counts as lost, which costs one of its attempts
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / _GIVEN_BACK).touch()

    def was_given_back(self) -> bool:
        """Tell whether :meth:`note_given_back` was called since the last time somebody asked."""
        note = self._folder / _GIVEN_BACK
        found = note.exists()
        note.unlink(missing_ok=True)
        return found

    def drop(self) -> None:
        """Delete it: the run has ended."""
        self._files.settle()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fold_file(self, part: str) -> Path:
        return self._folder / f"{part.replace('/', '-')}.npz"

    def _state_file(self, part: str) -> Path:
        return self._folder / f"{part.replace('/', '-')}.state.npz"


def _read(
    file: Path, *, only: Collection[str] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
    """The content of a file; ``None`` where there is none, or none of this format.

    Args:
        file: Written by :class:`CheckpointFiles`.
        only: Names of the arrays that are wanted; by default all.
    """
    try:
        with file.open("rb") as source, np.load(source, allow_pickle=False) as content:
            wanted = content.files if only is None else only
            arrays = {name: content[name] for name in wanted if name != "facts"}
            facts = json.loads(content["facts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (arrays, facts) if facts.get("format") == FORMAT else None


def _under(prefix: str, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _reports(history: list[dict[str, Any]]) -> tuple[EpochReport, ...]:
    return tuple(EpochReport(**report) for report in history)
