"""Early stopping: the best weights so far, and how long they have been the best."""

from __future__ import annotations

from typing import Any

import numpy as np

from breakhis_search.training.phases import Phase
from breakhis_search.training.results import EpochReport, FloatArray
from breakhis_search.training.snapshots import Snapshot
from breakhis_search.training.state import Part, places_of, snapshot_from

_LOGITS = "logits"


class EarlyStopping:
    """Remembers the best weights; without any score those of the last epoch count.

    Args:
        patience: Epochs without a better score after which there is no point in going on.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best: tuple[float, float] | None = None
        self._best_epoch = 0
        self._kept: Snapshot | None = None
        self._logits: FloatArray | None = None
        self._waited = 0

    def see(self, report: EpochReport, logits: FloatArray | None, phase: Phase) -> None:
        """Take note of an epoch, and of the weights if they are the best."""
        if report.score is None:
            self._best_epoch, self._logits, self._kept = report.epoch + 1, logits, None
            return
        rank = (report.score, -(report.val_loss or 0.0))  # the likelihood breaks ties
        if self._best is None or rank > self._best:
            self._best, self._best_epoch, self._waited = rank, report.epoch + 1, 0
            self._kept, self._logits = phase.snapshot(), logits
        else:
            self._waited += 1

    def start_again(self) -> None:
        """Give the next phase all of the patience."""
        self._waited = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no point in going on."""
        return self._waited >= self._patience

    def kept(self, phase: Phase) -> tuple[int, FloatArray | None, Snapshot]:
        """Return the best epoch (from 1), its logits and weights.

        Args:
            phase: The one that trained last.
        """
        return self._best_epoch, self._logits, self._kept or phase.snapshot()

    def state(self, core: Any) -> Part:
        """Return all of it, with weights by their place in the model."""
        arrays = {} if self._kept is None else places_of(core, self._kept)
        if self._logits is not None:
            arrays[_LOGITS] = self._logits
        facts = {
            "best": self._best,
            "best_epoch": self._best_epoch,
            "waited": self._waited,
            "keeps": self._kept is not None,
        }
        return Part(arrays, facts)

    def go_on(self, core: Any, state: Part) -> None:
        """Be as it was.

        Raises:
            StateMismatchError: The state is that of another graph.
        """
        weights = {name: value for name, value in state.arrays.items() if name != _LOGITS}
        self._kept = snapshot_from(core, weights) if state.facts["keeps"] else None
        logits = state.arrays.get(_LOGITS)
        self._logits = None if logits is None else np.asarray(logits, np.float32)
        best = state.facts["best"]
        self._best = None if best is None else (best[0], best[1])
        self._best_epoch, self._waited = state.facts["best_epoch"], state.facts["waited"]
