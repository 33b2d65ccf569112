"""What a search says of itself as it goes by."""

from __future__ import annotations

import pytest

from breakhis_search.cli import progress
from breakhis_search.cli.progress import TerminalObserver
from breakhis_search.study.progress import SearchSize, TrialSummary


@pytest.fixture
def clock(monkeypatch):
    """A clock of monotonic seconds that a test sets."""
    now = {"s": 0.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: now["s"])
    return now


def begun(repetitions: int) -> TerminalObserver:
    observer = TerminalObserver()
    observer.search_started(
        SearchSize(trials=5, finished=0, folds=2, epochs=3, best=None, repetitions=repetitions)
    )
    return observer


def test_time_left_counts_pruned_trials_as_short_and_finalists_as_long(clock, capsys):
    observer = begun(repetitions=6)
    clock["s"] = 120.0
    observer.trial_finished(TrialSummary(0, "complete", 0.9, 120.0))
    assert "about 20 min left" in capsys.readouterr().out  # 4 × 2 min, and 6 × 2 min
    clock["s"] = 150.0
    observer.trial_finished(TrialSummary(1, "pruned", None, 30.0))
    told = capsys.readouterr().out
    assert "about 16 min left, finalists included" in told  # 3 × 75 s, and 6 × 2 min


def test_a_failed_trial_is_told_with_its_reason_and_no_time_before_one_has_ended(clock, capsys):
    observer = begun(repetitions=0)
    observer.trial_finished(TrialSummary(0, "interrupted", None, 1.0, "KeyboardInterrupt"))
    assert "min left" not in capsys.readouterr().out
    clock["s"] = 60.0
    observer.trial_finished(TrialSummary(0, "failed", None, 60.0, "loss is not finite"))
    told = capsys.readouterr().out
    assert "failed" in told
    assert "(loss is not finite)" in told
    assert "about 4 min left" in told


def test_what_is_done_once_is_not_expected_again(clock, capsys):
    observer = begun(repetitions=0)
    for seconds in (10.0, 310.0):  # five minutes of features, and before them a first batch
        clock["s"] = seconds
        observer.features_computed("mobilenet", int(seconds), 400)
    observer.epoch_finished(number=0, fold=0, epoch=0, score=None, images_per_s=9.0)
    clock["s"] = 370.0
    observer.trial_finished(TrialSummary(0, "complete", 0.9, 360.0))
    assert "about 5 min left" in capsys.readouterr().out  # 4 × 70 s


def test_every_stage_is_judged_by_its_own_trials(clock, capsys):
    observer = begun(repetitions=2)
    observer.stage_started("probe", until=3)
    clock["s"] = 60.0
    observer.trial_finished(TrialSummary(0, "complete", 0.9, 60.0))
    assert "about 2 min left in stage probe" in capsys.readouterr().out
    for number in (1, 2):
        observer.trial_finished(TrialSummary(number, "complete", 0.9, 60.0))
    observer.stage_started("tune", until=5)
    capsys.readouterr()
    clock["s"] = 660.0
    observer.trial_finished(TrialSummary(3, "complete", 0.9, 600.0))
    told = capsys.readouterr().out
    assert "about 30 min left, finalists included" in told  # 1 × 10 min, and 2 × 10 min


def test_features_are_told_twice_a_minute_where_there_is_no_terminal(clock, capsys):
    observer = begun(repetitions=0)
    for seconds in range(0, 70, 5):
        clock["s"] = float(seconds)
        observer.features_computed("mobilenet", seconds, 70)
    told = capsys.readouterr().out
    assert told.count("features of mobilenet") == 3
    assert "features of mobilenet: 0/70 images (once, then kept)" in told
