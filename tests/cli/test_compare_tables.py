"""Which tables of best trials ``compare`` shows: those that say more than the table of all."""

from __future__ import annotations

import pandas as pd
import pytest

from breakhis_search.cli.compare import _telling
from breakhis_search.workflow.comparison import JudgedStudy


def judged(samplings: list[str], scores: list[float | None]) -> JudgedStudy:
    trials = pd.DataFrame({"sampling": samplings, "score": scores})
    best = trials[trials["score"].notna()].drop_duplicates("sampling")
    nothing = pd.DataFrame()
    return JudgedStudy(
        name="binary@v1",
        objective="auroc",
        finalists=nothing,
        trials=trials,
        best_by={"sampling": best},
        by_magnification=nothing,
        selection=None,
        optimism="",
        hard_patients="",
        leak_alarm="",
        is_demo=False,
        registered=(),
    )


@pytest.mark.parametrize(
    ("samplings", "scores", "shown"),
    [
        (["none", "focal", "none"], [0.9, 0.8, 0.7], True),
        (["none", "focal"], [0.9, 0.8], False),
        (["none", "none"], [0.9, 0.8], False),
        (["none", "focal", "none"], [0.9, 0.8, None], False),
        ([], [], False),
    ],
    ids=["some twice", "each once", "one value", "each once and a failure", "no trial"],
)
def test_best_of_every_value_is_shown_where_it_tells_something(samplings, scores, shown):
    assert [column for column, _ in _telling(judged(samplings, scores))] == ["sampling"] * shown
