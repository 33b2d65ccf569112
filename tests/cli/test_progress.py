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
