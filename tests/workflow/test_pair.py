"""``compare --pair``: two numbers mean two models of one kind."""

from __future__ import annotations

from typing import Any

import pytest

from breakhis_search.comparison.named_models import NamedModel
from breakhis_search.tracking import keys
from breakhis_search.workflow import pair
from breakhis_search.workflow.pair import compare_two

FINALISTS = ("0", "2")
RUN = "f" * 32


@pytest.fixture
def compared(monkeypatch):
    """Names of the runs that are held against each other, and what is said of them."""

    def find(_client: Any, study: str, model: str, *, kinds=("finalist", "trial")) -> NamedModel:
        kind = "finalist" if model in (*FINALISTS, RUN) and "finalist" in kinds else "trial"
        return NamedModel(f"{study} {kind} {model}", model, {keys.ROLE: kind, keys.OBJECTIVE: "x"})

    monkeypatch.setattr(pair, "find_model", find)
    monkeypatch.setattr(pair, "compare_pair", lambda _client, a, b, _objective: (a[0], b[0]))

    def compared(*models: str) -> tuple[Any, list[str]]:
        found = compare_two(None, ["s"], models)
        return found.pair, found.warnings

    return compared


def test_two_finalists_are_compared_as_such(compared):
    assert compared("0", "2") == (("s finalist 0", "s finalist 2"), [])


def test_two_that_were_none_are_compared_as_trials(compared):
    assert compared("1", "3") == (("s trial 1", "s trial 3"), [])


@pytest.mark.parametrize("models", [("0", "1"), ("1", "0")])
def test_beside_a_trial_that_was_no_finalist_its_trial_stands_for_a_finalist(compared, models):
    names, warnings = compared(*models)
    assert names == tuple(f"s trial {model}" for model in models)
    assert warnings[0].startswith(
        "s trial 1 is a trial of the search, so s trial 0 is compared, not its finalist"
    )


def test_a_run_that_is_named_by_its_id_is_taken_as_it_is(compared):
    names, [warning] = compared(RUN, "1")
    assert names == (f"s finalist {RUN}", "s trial 1")
    assert "it looks better than it would as a finalist" in warning
