"""Who stands in a leaderboard."""

from __future__ import annotations

import pandas as pd
import pytest

from breakhis_search.comparison import leaderboard
from breakhis_search.comparison.leaderboard import only_finalists, read_leaderboard
from breakhis_search.tracking import keys
from breakhis_search.tracking.stored_runs import StoredRun


def test_earlier_finalists_leave_and_the_others_are_ranked_anew() -> None:
    board = pd.DataFrame(
        {
            "rank": [1, 2, 3, None],
            "stage": [*[keys.STAGE_FINALISTS] * 3, keys.STAGE_SEARCH],
            "run_id": ["earlier", "a", "b", "trial"],
        }
    )
    kept = only_finalists(board, ["a", "b"])
    assert kept["run_id"].tolist() == ["a", "b", "trial"]
    assert kept["rank"].tolist()[:2] == [1, 2]
    assert pd.isna(kept["rank"].iloc[2])


def run_in_state(state: str) -> StoredRun:
    """A trial whose scores are in MLflow, and a state that may not say so yet."""
    tags = {
        keys.STUDY: "s@v1",
        keys.TRIAL_NUMBER: "0",
        keys.STAGE: keys.STAGE_SEARCH,
        keys.STATE: state,
        keys.OBJECTIVE: "auroc",
    }
    scores = {"objective/auroc": 0.9, "patient/auroc": 0.8, "image/nll": 0.3, "own/image/m": 1.0}
    scores |= {"interval/image/auroc/low": 0.7, "interval/image/auroc/high": 0.95}
    cost = {keys.METRIC_PARAMETERS: 1000.0, "seconds/total": 9.0}
    return StoredRun("r", "trial", "1", "RUNNING", 0, None, tags, {}, scores | cost)


@pytest.mark.parametrize(
    ("state", "is_scored"),
    [("complete", True), ("reused", True), ("running", False), ("interrupted", False)],
)
def test_a_score_stands_only_beside_a_state_that_it_is_final_in(monkeypatch, state, is_scored):
    def read_runs(_client, tags, **_):
        return [run_in_state(state)] if tags[keys.ROLE] == keys.ROLE_TRIAL else []

    monkeypatch.setattr(leaderboard, "read_runs", read_runs)
    [row] = read_leaderboard(None, ["s@v1"]).to_dict("records")
    assert row["state"] == state
    scores = ("score", "patient_score", "score_low", "score_high", "nll", "own/image/m")
    assert [pd.notna(row.get(name)) for name in scores] == [is_scored] * len(scores)
    assert (row["parameters"], row["seconds"]) == (1000.0, 9.0), "what it cost is known"
