"""The trial's page is one safe, complete file."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from breakhis_search.data.taxonomy import class_names
from breakhis_search.errors import DataError
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.intervals import bootstrap_intervals
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.page import build_trial_page, trial_data_files
from breakhis_search.evaluation.samples import LEVELS

HISTORY = pd.DataFrame({"fold": [0, 0], "epoch": [0, 1], "loss": [1.0, 0.5], "score": [0.6, 0.7]})
EVIL = "<script>alert('x')</script>"


def page_of(table, history=HISTORY, title="Trial 3", *, intervals=None, extra=(), **facts) -> str:
    return build_trial_page(
        table,
        history,
        title=title,
        subtitle_facts=facts or {"a": "b"},
        intervals=intervals or bootstrap_intervals(table, resamples=50),
        extra_sections=extra,
    )


def own_part(page: str) -> str:
    """Return the page without plotly.js."""
    return page.replace(get_plotlyjs(), "")


@pytest.fixture(scope="module")
def page(full_tables) -> str:
    return page_of(full_tables["multiclass"])


def test_page_holds_plotly_once_and_stays_below_six_megabytes(page):
    assert page.count(get_plotlyjs()) == 1
    assert len(page.encode()) < 6_000_000


def test_page_asks_the_network_for_nothing(page):
    assert not re.search(r"(src|href)\s*=|@import|url\(", own_part(page))
    assert "default-src 'none'" in page


def test_page_draws_every_figure(page):
    ids = re.findall(r'<div id="(figure-\d+)" class="plotly-graph-div"', page)
    assert ids == [f"figure-{number}" for number in range(1, 12)]
    assert own_part(page).count("Plotly.newPlot(") == 11


def test_same_input_gives_the_same_bytes(full_tables, page):
    assert page_of(full_tables["multiclass"]) == page


def test_page_shows_every_headline_with_its_interval(full_tables):
    intervals = bootstrap_intervals(full_tables["binary"], resamples=50)
    page = page_of(full_tables["binary"], intervals=intervals)
    names = [f"{level}/accuracy" for level in LEVELS]
    row = "".join(
        f'<td>{intervals.values[name]:.3f} <span class="interval">{interval}</span></td>'
        for name, interval in ((n, intervals.known[n]) for n in names)
    )
    assert f'<th scope="row">accuracy</th>{row}' in page


def test_score_without_an_interval_says_why_below_the_table(full_tables, page):
    rare = "too few patients for an interval (4 adenosis, 3 phyllodes tumor)"
    auroc = bootstrap_intervals(full_tables["multiclass"], resamples=50).values["image/auroc"]
    assert f"<td>{auroc:.3f}<sup>a</sup></td>" in page
    assert f"<sup>a</sup> {rare}" in page


def test_page_explains_the_four_levels_and_spanhols_rate(page):
    for name in (*LEVELS, "patient/recognition_rate"):
        assert f"<dt>{name}</dt>" in page


def test_page_makes_its_intervals_where_none_are_given(make_table):
    table = make_table(["benign", "malignant"] * 6, [[0.9, 0.1], [0.3, 0.7]] * 3 + [[0.4, 0.6]] * 6)
    made = build_trial_page(table, HISTORY, title="t", subtitle_facts={})
    assert str(bootstrap_intervals(table).known["patient/accuracy"]) in made


def test_cells_stand_on_the_page_with_their_counts(make_table):
    table = make_table(["benign", "malignant", "malignant"], [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    page = page_of(table)
    levels = "0.50<br>0.50<br>0.50<br>0.50<br>0.65"
    assert f"<b>0.50</b><i>{levels}</i><small>2 images<br>2 patients</small>" in page
    assert "<small>1 image<br>1 patient</small>" in page


def test_page_of_several_seeds_says_so(make_table):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    seeds = pd.concat([table.assign(seed=seed) for seed in range(3)], ignore_index=True)
    history = pd.concat([HISTORY.assign(seed=seed) for seed in range(3)], ignore_index=True)
    page = page_of(seeds, history)
    assert "2 images of 2 patients. Every score is the mean over 3 seeds" in page
    assert "ROC, 2 patients, mean of 3 seeds" in page
    assert "The first of 3 seeds is drawn." in page


def test_learning_curves_of_a_finalist_speak_only_of_what_is_drawn(make_table):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    finalist = HISTORY.assign(score=None, val_loss=[None, 0.6])
    learning = own_part(page_of(table, finalist)).partition("<h2>Learning curves</h2>")[2]
    assert "The number of epochs was fixed beforehand" in learning
    assert "the star is their validation loss" in learning
    assert "overfitting" not in learning, "there is no curve to see it by"
    assert "whose weights are kept" not in learning
    searched = own_part(page_of(table, HISTORY.assign(val_loss=[0.9, 0.6])))
    assert "Validation loss that rises" in searched
    assert "The star is the epoch whose weights are kept" in searched


def test_extra_section_stands_before_the_learning_curves(make_table):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    extra = Section("Calibration", "How to read it.", (), ["Nothing to draw."], "<table></table>")
    page = own_part(page_of(table, extra=[extra]))
    shown = "<h2>Calibration</h2><p>How to read it.</p>"
    shown += '<p class="absent">Nothing to draw.</p><table></table>'
    assert page.index(shown) < page.index("<h2>Learning curves</h2>")


def test_title_and_facts_are_escaped(make_table):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    page = own_part(page_of(table, title=EVIL, **{EVIL: EVIL}))
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") == 4


def test_class_names_and_phases_are_escaped(make_table):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    table = table.rename(columns={"logit_benign": f"logit_{EVIL}"})
    page = own_part(page_of(table, HISTORY.assign(phase=["head", EVIL])))
    assert "<script>alert" not in page
    assert "alert(&#x27;x&#x27;)" in page


def test_class_that_cannot_be_drawn_is_named(make_table):
    names = class_names("multiclass")[:3]
    table = make_table(names[:2], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], names=names)
    sentence = "No curve at image level for phyllodes tumor: no image of this class was scored."
    assert sentence in page_of(table)


def test_single_patient_page_says_what_is_missing(make_table):
    page = page_of(make_table(["benign"], [[0.9, 0.1]]), pd.DataFrame())
    assert "No curve at patient level: every patient is of the same class" in page
    assert "AUROC has no value: every image is of the same class." in page
    assert "No losses or scores by epoch were recorded." in page
    assert "1 image of 1 patient." in page
    tables = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\bnan\b", tables, flags=re.IGNORECASE)


def test_undefined_metrics_are_listed_with_their_reason(make_table):
    page = page_of(make_table(["benign"], [[0.9, 0.1]]))
    assert "fewer than two classes are present: <code>image/precision_macro" in page


def test_history_that_cannot_be_placed_is_refused(make_table):
    with pytest.raises(DataError, match="a history without fold"):
        page_of(make_table(["benign"], [[0.9, 0.1]]), HISTORY.drop(columns="fold"))


def files_of(table, history=HISTORY) -> dict[str, pd.DataFrame]:
    intervals = bootstrap_intervals(table, resamples=50)
    return trial_data_files(table, history, intervals=intervals)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_data_files_hold_both_levels(full_tables, task):
    files = files_of(full_tables[task])
    assert list(files) == [
        *("roc.csv", "pr.csv", "confusion.csv", "cells.csv", "intervals.csv", "history.csv")
    ]
    for name in ("roc.csv", "pr.csv", "confusion.csv"):
        assert list(files[name]["level"].unique()) == ["image", "patient"]
    assert files["history.csv"] is HISTORY


def test_interval_file_holds_every_metric(full_tables):
    intervals = files_of(full_tables["binary"])["intervals.csv"].set_index("metric")
    assert intervals.loc["patient/recall_benign", ["n", "method"]].tolist() == [24, "wilson"]
    assert set(intervals.index) == set(compute_metrics(full_tables["binary"]))


def test_data_files_of_a_single_class_keep_their_headers(make_table):
    files = files_of(make_table(["benign"], [[0.9, 0.1]]), pd.DataFrame())
    assert files["pr.csv"].to_csv(index=False).strip() == "level,class,recall,precision,threshold"
    assert files["roc.csv"].to_csv(index=False).strip() == "level,class,fpr,tpr,threshold"


def test_data_files_survive_csv(full_tables, tmp_path):
    roc = files_of(full_tables["binary"])["roc.csv"]
    roc.to_csv(tmp_path / "roc.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "roc.csv"), roc)
