"""How many images a step takes: a number of the study file, or what suits the GPU best."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

import optuna

from breakhis_search.models.trainability import set_trainable
from breakhis_search.study.context import StudyContext
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.probing import USUAL, find_batch_size
from breakhis_search.training.snapshots import Snapshot

_KEY = "batch_size/"
_PROBING_S = 900.0
"""Longer than a probe takes, which compiles a step for every size that it tries."""


class KeptWithStudy(MutableMapping[str, int]):
    """Batch sizes by architecture, kept with an Optuna study: all its trials use the same.

    Args:
        study: The study.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getitem__(self, architecture: str) -> int:
        """Return the size that was found by whoever was first."""
        return int(self._study.user_attrs[_KEY + architecture])

    def __setitem__(self, architecture: str, size: int) -> None:
        """Keep a size, unless another process has found one meanwhile."""
        if architecture not in self:
            self._study.set_user_attr(_KEY + architecture, size)

    def __delitem__(self, architecture: str) -> None:
        """Forget a size."""
        self._study.set_user_attr(_KEY + architecture, None)

    def __iter__(self) -> Iterator[str]:
        """Iterate over architectures."""
        known = self._study.user_attrs.items()
        return (name.removeprefix(_KEY) for name, size in known if name.startswith(_KEY) and size)

    def __len__(self) -> int:
        """Return the number of architectures."""
        return sum(1 for _ in self)

    def __contains__(self, architecture: object) -> bool:
        """Tell whether a size is known."""
        return bool(self._study.user_attrs.get(f"{_KEY}{architecture}"))


def batch_size_of(architecture: str, graph: TrainingGraph, context: StudyContext) -> int:
    """Return the images per step of an architecture; found by a short probe where it is ``auto``.

    A CPU is as fast with any batch.

    Args:
        architecture: Of the graph.
        graph: Its model.
        context: The study.
    """
    wanted = context.config.training.batch_size
    if isinstance(wanted, int):
        return wanted
    if context.device.kind == "cpu":
        return USUAL
    if architecture not in context.batch_sizes:
        context.observer.probing(architecture)
        # Two workers that probe at once would time each other, and keep different sizes.
        block = f"{context.uid}/batch_size/{architecture}"
        with context.leases.exclusively(block, patience_s=_PROBING_S):
            if architecture not in context.batch_sizes:
                context.batch_sizes[architecture] = _probe(architecture, graph, context)
    return context.batch_sizes[architecture]


def _probe(architecture: str, graph: TrainingGraph, context: StudyContext) -> int:
    """What a probe finds; a machine is probed once for all studies with such images."""
    smallest = min(len(fold.train) for fold in context.split.folds)
    device, known = context.device, _Known(context.settings.cache_dir / "batch_sizes.json")
    name = f"{architecture} {context.input_shape} {smallest} {device.name} {device.precision}"
    size = known.find(name)
    if size is None:
        before = Snapshot.take(graph.core.variables)
        set_trainable(graph.core, "whole")
        size = find_batch_size(graph.probe(), context.input_shape, training_images=smallest)
        before.put()
        known.keep(name, size)
    return size


class _Known:
    """What was found on this machine before. A file that can't be read or written is no loss."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def find(self, name: str) -> int | None:
        return self._read().get(name)

    def keep(self, name: str, size: int) -> None:
        part = self._file.with_suffix(f".{os.getpid()}.part")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({**self._read(), name: size}, indent=1))
            part.replace(self._file)

    def _read(self) -> dict[str, int]:
        try:
            return dict(json.loads(self._file.read_text()))
        except (OSError, ValueError):
            return {}
