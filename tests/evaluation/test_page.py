"""The trial's page is one safe, complete file."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from breakhis_search.data.taxonomy import class_names
from breakhis_search.errors import DataError
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.page import build_trial_page, trial_data_files

HISTORY = pd.DataFrame({"fold": [0, 0], "epoch": [0, 1], "loss": [1.0, 0.5], "score": [0.6, 0.7]})
EVIL = "<script>alert('x')</script>"


def page_of(table, history=HISTORY, title="Trial 3", **facts) -> str:
    return build_trial_page(table, history, title=title, subtitle_facts=facts or {"a": "b"})


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


def test_page_shows_the_headline_numbers(full_tables, page):
    metrics = compute_metrics(full_tables["multiclass"])
    row = "".join(f"<td>{metrics[f'{level}/auroc']:.3f}</td>" for level in ("image", "patient"))
    assert f'<th scope="row">AUROC</th>{row}' in page


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
    assert "(1 image of 1 patient)" in page
    tables = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\bnan\b", tables, flags=re.IGNORECASE)


def test_undefined_metrics_are_listed_with_their_reason(make_table):
    page = page_of(make_table(["benign"], [[0.9, 0.1]]))
    assert "fewer than two classes are present: <code>image/precision_macro" in page


def test_history_that_cannot_be_placed_is_refused(make_table):
    with pytest.raises(DataError, match="a history without fold"):
        page_of(make_table(["benign"], [[0.9, 0.1]]), HISTORY.drop(columns="fold"))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_data_files_hold_both_levels(full_tables, task):
    files = trial_data_files(full_tables[task], HISTORY)
    assert list(files) == ["roc.csv", "pr.csv", "confusion.csv", "history.csv"]
    for name in ("roc.csv", "pr.csv", "confusion.csv"):
        assert list(files[name]["level"].unique()) == ["image", "patient"]
    assert files["history.csv"] is HISTORY


def test_data_files_of_a_single_class_keep_their_headers(make_table):
    files = trial_data_files(make_table(["benign"], [[0.9, 0.1]]), pd.DataFrame())
    assert files["pr.csv"].to_csv(index=False).strip() == "level,class,recall,precision,threshold"
    assert files["roc.csv"].to_csv(index=False).strip() == "level,class,fpr,tpr,threshold"


def test_data_files_survive_csv(full_tables, tmp_path):
    roc = trial_data_files(full_tables["binary"], HISTORY)["roc.csv"]
    roc.to_csv(tmp_path / "roc.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "roc.csv"), roc)
