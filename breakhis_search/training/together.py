"""Runs trainings, alone or several at once.

A training is a generator. It does everything by itself but the steps of a head on stored features:
those it yields, and who runs it takes them, together with those of other trainings where there are
any. So a trial trains by the same code, to the same numbers, in company as alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from breakhis_search.training.head_batch import HeadBatch
from breakhis_search.training.phases import HeadStep, Steps, StepTaken

T = TypeVar("T")


Training: TypeAlias = Steps[T]
"""A training: yields steps of its head on stored features, returns its result."""


class CutOff(BaseException):
    """Thrown into a training whose company came to an end: like Ctrl-C, no error of its own."""


def run_alone(training: Training[T]) -> T:
    """Run a training to its end and return its result."""
    [result] = run_together([training])
    return result


def run_together(trainings: Sequence[Training[T]]) -> list[T]:
    """Run trainings side by side to their ends and return their results in order.

    What one of them raises ends them all: :class:`CutOff` is thrown into the others.
    """
    results: dict[int, T] = {}
    waiting: dict[int, HeadStep] = {}

    def advance(number: int, taken: StepTaken | None) -> None:
        try:
            step = next(trainings[number]) if taken is None else trainings[number].send(taken)
        except StopIteration as end:
            waiting.pop(number, None)
            results[number] = end.value
        else:
            waiting[number] = step

    try:
        for number in range(len(trainings)):
            advance(number, None)
        while waiting:
            for number, taken in _take(waiting).items():
                advance(number, taken)
    except BaseException:
        for training in trainings:
            _cut_off(training)
        raise
    return [results[number] for number in range(len(trainings))]


def _cut_off(training: Training[T]) -> None:
    """End a training; one that has ended already has nothing more to say."""
    try:
        training.throw(CutOff("what it was trained together with has ended"))
    except (CutOff, StopIteration):
        return


def _take(steps: Mapping[int, HeadStep]) -> dict[int, StepTaken]:
    """Take the steps, those of heads of one size as one."""
    groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, step in steps.items():
        groups[(*step.phase.size, len(step.features))].append(number)
    taken: dict[int, StepTaken] = {}
    for numbers in groups.values():
        start = time.perf_counter()
        losses = _take_as_one([steps[number] for number in numbers])
        share = (time.perf_counter() - start) / len(numbers)
        taken |= {n: StepTaken(loss, share) for n, loss in zip(numbers, losses, strict=True)}
    return taken


def _take_as_one(steps: Sequence[HeadStep]) -> list[float]:
    batch = _common_batch(steps)
    places = [step.phase.place for step in steps]
    shape = (len(batch), *steps[0].features.shape)
    features = np.zeros(shape, np.float32)
    targets = np.zeros((*shape[:2], steps[0].targets.shape[1]), np.float32)
    weights = np.zeros(shape[:2], np.float32)
    rates = np.zeros(len(batch), np.float32)  # who is in the batch and asks for nothing rests
    for place, step in zip(places, steps, strict=True):
        features[place], targets[place] = step.features, step.targets
        weights[place], rates[place] = step.weights, step.rate
    losses = batch.step(features, targets, weights, rates)
    return [float(losses[place]) for place in places]


def _common_batch(steps: Sequence[HeadStep]) -> HeadBatch:
    """The batch that holds the heads of all steps; a new one where none does, or few of it ask."""
    phases = [step.phase for step in steps]
    batch = phases[0].batch
    if all(phase.batch is batch for phase in phases) and len(batch) <= 2 * len(phases):
        return batch
    batch = HeadBatch.stack([(phase.batch, phase.place) for phase in phases])
    for place, phase in enumerate(phases):
        phase.batch, phase.place = batch, place
    return batch
