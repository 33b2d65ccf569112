"""Seconds by phase: of blocks that ended, of those that have not, and of earlier processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from breakhis_search.training import timing, trainer
from breakhis_search.training.phases import StepTaken
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import CutOff
from breakhis_search.training.trainer import FoldTrainer


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved."""

    class Clock:
        now = 100.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_seconds_so_far_include_what_has_not_ended(clock):
    timer = Timer()
    with timer.measure("total"):
        with timer.measure("train"):
            clock.now += 3
        with timer.measure("validate"):
            clock.now += 1
            timer.away += 0.5
            assert timer.so_far() == {"train": 3.0, "validate": 0.5, "total": 3.5}
        assert timer.seconds == {"train": 3.0, "validate": 0.5}
    assert timer.seconds == timer.so_far() == {"train": 3.0, "validate": 0.5, "total": 3.5}


def test_a_timer_goes_on_from_the_seconds_of_others(clock):
    timer = Timer({"train": 10.0, "total": 12.0})
    with timer.measure("total"), timer.measure("train"):
        clock.now += 2
    assert timer.seconds == {"train": 12.0, "total": 14.0}


def test_a_block_that_raises_is_counted(clock):
    timer = Timer()

    def struck() -> None:
        with timer.measure("total"):
            clock.now += 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        struck()
    assert timer.so_far() == {"total": 2.0}


@pytest.mark.parametrize("end", ["a step is taken", "the company is cut off"])
def test_the_time_of_others_is_not_a_training_s_however_it_ends(clock, monkeypatch, end):
    monkeypatch.setattr(trainer, "time", clock)
    timer = Timer()

    def steps():
        clock.now += 1
        yield "a step"
        clock.now += 2

    def training():
        with timer.measure("total"):
            yield from FoldTrainer._apart(SimpleNamespace(_timer=timer), steps())

    run = training()
    next(run)
    clock.now += 60  # others have their turn
    if end == "a step is taken":
        with pytest.raises(StopIteration):
            run.send(StepTaken(0.5, 0.25))
        assert timer.seconds == {"total": 3.25}
    else:
        with pytest.raises(CutOff):
            run.throw(CutOff)
        assert timer.seconds == {"total": 1.0}
