"""Figures show what the data say, in the one style."""

from __future__ import annotations

import numpy as np
import pytest

from breakhis_search.data.taxonomy import class_names
from breakhis_search.evaluation.figures import (
    confusion_figure,
    pr_figure,
    roc_figure,
)
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.style import OKABE_ITO, build_template, class_style

TYPES = class_names("multiclass")


def names_in(figure):
    return [trace.name for trace in figure.data]


def test_multiclass_roc_names_every_line_with_its_area(full_tables):
    table = full_tables["multiclass"]
    metrics, names = compute_metrics(table), names_in(roc_figure(table, "patient"))
    assert names[0] == "chance, 0.500"
    for name in TYPES:
        assert f"{name.replace('_', ' ')}, {metrics[f'patient/auroc_{name}']:.3f}" in names
    assert f"macro average, {metrics['patient/auroc']:.3f}" in names
    assert any(name.startswith("micro average") for name in names)


def test_binary_roc_draws_the_positive_class_only(full_tables):
    table = full_tables["binary"]
    auroc = compute_metrics(table)["image/auroc"]
    assert names_in(roc_figure(table, "image")) == ["chance, 0.500", f"malignant, {auroc:.3f}"]


def test_binary_precision_recall_draws_both_classes(full_tables):
    names = names_in(pr_figure(full_tables["binary"], "image"))
    assert [name.partition(",")[0] for name in names] == ["benign", "malignant"]


@pytest.mark.parametrize("figure_of", [roc_figure, pr_figure])
def test_curves_of_a_single_class_are_not_drawn(make_table, figure_of):
    assert figure_of(make_table(["benign"], [[0.9, 0.1]]), "image") is None


def test_title_counts_what_is_scored(make_table):
    table = make_table(["benign", "malignant"], [[0.9, 0.1], [0.1, 0.9]])
    assert roc_figure(table, "patient").layout.title.text == "ROC, 2 patients"


def test_confusion_colours_counts_by_rate(make_table):
    table = make_table(["benign", "benign", "malignant"], [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    heatmap = confusion_figure(table, "image", "count").data[0]
    assert np.asarray(heatmap.z).tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert [list(row) for row in heatmap.text] == [["1", "1"], ["0", "1"]]
    assert list(heatmap.y) == ["benign<br>2", "malignant<br>1"]


def test_confusion_percents_say_that_a_rare_mistake_is_not_none(make_table):
    table = make_table(["benign"] * 300, [[0.9, 0.1]] * 299 + [[0.1, 0.9]])
    text = confusion_figure(table, "image", "rate").data[0].text
    assert [list(row) for row in text] == [["100", "<1"], ["", ""]]


def test_all_figures_share_the_template(full_tables):
    table = full_tables["binary"]
    for figure in (roc_figure(table, "image"), confusion_figure(table, "image", "rate")):
        assert figure.layout.template == build_template()


def test_class_lines_differ_and_use_the_palette():
    styles = [class_style(name) for name in (*TYPES, "macro", "micro")]
    assert len(set(styles)) == 10
    assert {style.color for style in styles} <= set(OKABE_ITO.values())
