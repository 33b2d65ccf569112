"""Models and their compiled training steps, kept from trial to trial.

Building and compiling a model costs more than many a trial's training. Trials that differ only in
rates, strengths and seeds have the same graph: they share one model and its compiled steps, and
each starts from weights, momenta and seeds of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np

from breakhis_search.models.heads import has_seam, layers_of_head, split_at_features
from breakhis_search.models.trunk import Trunk, cut_trunk
from breakhis_search.training.compilation import AugmentedModel, CompiledPhase

GRAPHS_KEPT = 4
"""The least recently used ones are let go: a backbone and its optimizer hold up to some 100 MB."""


class TrainingGraph:
    """A model with the training steps that were compiled for it.

    Args:
        core: The model (logits).
    """

    def __init__(self, core: Any) -> None:
        self.core = core
        # All variables, not only weights: the seeds of dropout layers start anew as well.
        self._built = [np.array(variable) for variable in core.variables]
        self._phases: dict[tuple[str, bool, bool, bool, int], CompiledPhase] = {}
        self._trunks: dict[str, Trunk | None] = {}
        self._was_trained = False

    def restore(self) -> None:
        """Give every variable the value that the model was built with.

        Where no compiled step was asked for since, only a head can differ, which whoever uses the
        graph draws anew: hundreds of variables of a backbone are left alone.
        """
        if not self._was_trained:
            return
        self._was_trained = False
        for variable, value in zip(self.core.variables, self._built, strict=True):
            variable.assign(value)

    def adopt(self, model: Any) -> None:
        """Give every variable the value it has in another model of the same graph."""
        self._was_trained = True
        for variable, other in zip(self.core.variables, model.variables, strict=True):
            variable.assign(np.array(other))

    def phase(self, part: str, *, is_focal: bool, turns: bool, parts: int = 1) -> CompiledPhase:
        """Return the training step on images, compiled at most once.

        Args:
            part: What is trainable now; ``all`` where nothing is pretrained.
            is_focal: Whether the loss is the focal one.
            turns: Whether the step also turns the images.
            parts: Each batch is taken in so many parts.
        """
        return self._phase(part, is_focal=is_focal, trunk=None, turns=turns, parts=parts)

    def tail_phase(self, part: str, *, is_focal: bool, parts: int = 1) -> CompiledPhase:
        """Return the training step on what the trunk said of images; see :meth:`trunk`."""
        trunk = self.trunk(part)
        return self._phase(part, is_focal=is_focal, trunk=trunk, turns=False, parts=parts)

    def probe(self) -> CompiledPhase:
        """Return a training step on images, with what is trainable now, that is not kept."""
        self._was_trained = True
        return CompiledPhase(_model_of(self.core, None, turns=True), is_focal=False)

    def trunk(self, part: str) -> Trunk | None:
        """Return what of the model does not learn while ``part`` does, which must be so now."""
        if part not in self._trunks:
            self._trunks[part] = cut_trunk(self.core)
        return self._trunks[part]

    def _phase(
        self, part: str, *, is_focal: bool, trunk: Trunk | None, turns: bool, parts: int
    ) -> CompiledPhase:
        self._was_trained = True
        key = (part, is_focal, trunk is not None, turns, parts)
        if key not in self._phases:
            model = _model_of(self.core, trunk, turns=turns)
            self._phases[key] = CompiledPhase(model, is_focal=is_focal, parts=parts)
        return self._phases[key]


def _model_of(core: Any, trunk: Trunk | None, *, turns: bool) -> AugmentedModel:
    if trunk is not None:
        return AugmentedModel(trunk.tail, layers_of_head(core), augments=False)
    if has_seam(core):
        return AugmentedModel(
            split_at_features(core)[0], layers_of_head(core), augments=True, turns=turns
        )
    return AugmentedModel(core, (), augments=True, turns=turns)


class GraphCache:
    """The graphs a process has built, by signature, the least recently used one let go first."""

    def __init__(self, size: int = GRAPHS_KEPT) -> None:
        self._size = size
        self._graphs: OrderedDict[Hashable, TrainingGraph] = OrderedDict()

    def find(self, signature: Hashable) -> TrainingGraph | None:
        """Return the graph of a signature if it is kept."""
        if signature not in self._graphs:
            return None
        self._graphs.move_to_end(signature)
        return self._graphs[signature]

    def keep(self, signature: Hashable, graph: TrainingGraph) -> TrainingGraph:
        """Keep a graph, and return it."""
        self._graphs[signature] = graph
        while len(self._graphs) > self._size:
            self._graphs.popitem(last=False)
        return graph
