"""Training that goes on where an earlier process left it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from breakhis_search.errors import OutOfMemoryFailure
from breakhis_search.study.checkpoints import RunCheckpoint
from breakhis_search.study.records import TrialRecord
from breakhis_search.training.results import EpochReport, FoldResult, TrainingData
from breakhis_search.training.state import FoldState, StateMismatchError
from breakhis_search.training.together import Training
from breakhis_search.training.trainer import FoldTrainer


class RestartableTraining:
    """Trains folds, keeps what they reach, and begins no fold anew that was begun before.

    Args:
        trainer: Trains.
        checkpoint: Of the run; ``None`` for what takes only moments.
        record: Of the run: it says so when a batch is taken in parts.
        lost: From :attr:`breakhis_search.study.losses.Losses.signs_of_want`. The second one halves
            what a step takes at once.
    """

    def __init__(
        self,
        trainer: FoldTrainer,
        checkpoint: RunCheckpoint | None,
        record: TrialRecord,
        *,
        lost: int = 0,
    ) -> None:
        self._trainer = trainer
        self._checkpoint = checkpoint
        self._record = record
        for _ in range(lost - 1):
            self._take_smaller_parts()

    def run(
        self,
        part: str,
        data: TrainingData,
        *,
        seen: Callable[[EpochReport], None],
        weights: bool,
        **options: Any,
    ) -> Training[FoldResult]:
        """Train a fold, or what is left of it; return its result.

        Args:
            part: Name of the fold in this run.
            data: Images and rows.
            seen: Told of the epochs that an earlier process trained.
            weights: Whether the weights of the result will be asked for.
            options: Of :meth:`FoldTrainer.training`.
        """
        checkpoint = self._checkpoint
        done = checkpoint.fold(part, self._trainer.core) if checkpoint else None
        if done is not None:
            for report in done.history:
                seen(report)
            return done
        while True:
            try:
                result = yield from self._train(part, data, seen, options)
            except OutOfMemoryFailure:
                if not self._take_smaller_parts():
                    raise
            else:
                break
        if checkpoint:
            checkpoint.keep_fold(part, result, self._trainer.core, weights=weights)
        return result

    def _take_smaller_parts(self) -> bool:
        done = self._trainer.take_smaller_parts()
        if done:
            self._record.note_parts(self._trainer.parts)
        return done

    def _train(
        self,
        part: str,
        data: TrainingData,
        seen: Callable[[EpochReport], None],
        options: dict[str, Any],
    ) -> Training[FoldResult]:
        checkpoint = self._checkpoint
        if checkpoint is None:
            return (yield from self._trainer.training(data, **options))

        def keep(state: FoldState) -> None:
            checkpoint.keep_state(part, state)

        options = {**options, "on_state": keep}
        start = checkpoint.state(part)
        if start is not None:
            try:
                return (
                    yield from self._trainer.training(data, start=start, on_start=seen, **options)
                )
            except StateMismatchError:
                pass  # it was left by another version of this program
        return (yield from self._trainer.training(data, **options))
