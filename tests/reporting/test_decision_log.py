"""The decision log tells what happened, in order."""

from __future__ import annotations

from breakhis_search.comparison.answers import GateAnswer
from breakhis_search.comparison.history import ChampionChange
from breakhis_search.comparison.openings import Opening
from breakhis_search.reporting.decision_log import decision_log


def events(log: str) -> list[list[str]]:
    return [line[2:-2].split(" | ") for line in log.splitlines() if line.startswith("| 20")]


def test_every_event_stands_once_and_in_order(make_facts):
    refused = GateAnswer("2", "1", "refused", "2026-01-03T00:00:00+00:00", "p = 0.3")
    opening = Opening("b", "2026-01-04T10:00:00+00:00", "s", "m", "1", "sha", 1)
    cut_off = Opening("a", "2026-01-04T09:00:00+00:00", "s", "m", None)
    moves = (
        ChampionChange("1", None, "registered", "2026-01-01T00:00:00+00:00", "the first"),
        ChampionChange("2", "1", "forced", "2026-01-05T00:00:00+00:00", "insisted"),
        ChampionChange("1", "2", "rolled back", "2026-01-06T00:00:00+00:00", "on purpose"),
    )
    log = decision_log(make_facts(answers=(refused,), openings=(cut_off, opening), history=moves))
    assert [event[1] for event in events(log)] == [
        "version 1 champion (registered)",
        "study binary@v1 begun",
        "finalists begun",
        "search ended",
        "trial 0 selected, registered as version 2",
        "version 2 refused by the gate (against champion version 1); nothing was moved",
        "sealed test opened",
        "sealed test opened AGAIN (number 2)",
        "version 2 champion instead of 1 (forced)",
        "version 1 champion instead of 2 (rolled back)",
    ]
    assert events(log)[5][2] == "p = 0.3"
    assert events(log)[6][2] == "without a rival; cut off before its predictions were kept"
    assert events(log)[7][2] == "against champion version 1"


def test_search_that_is_still_going_on_has_not_ended(make_facts):
    facts = make_facts()
    going = type(facts.search)(facts.search.tried, None)
    assert "search ended" not in decision_log(make_facts(search=going))


def test_counts_of_trials_and_seeds_are_said(make_facts):
    log = decision_log(make_facts())
    assert "2 trials: 1 complete, 1 failed" in log
    assert "1 seed, all folds" in log
