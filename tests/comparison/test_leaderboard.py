"""Who stands in a leaderboard."""

from __future__ import annotations

import pandas as pd

from breakhis_search.comparison.leaderboard import only_finalists
from breakhis_search.tracking import keys


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
