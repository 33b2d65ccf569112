"""Figures by magnification show what the images of each magnification say."""

from __future__ import annotations

import pytest

from breakhis_search.evaluation.intervals import Interval
from breakhis_search.evaluation.magnification_figures import (
    magnification_confusions,
    magnification_curves,
    magnification_figure,
)
from breakhis_search.evaluation.metrics import compute_metrics

ALL = ("40", "100", "200", "400")


def test_magnification_bars_hold_the_metrics(full_tables):
    metrics = compute_metrics(full_tables["binary"])
    figure = magnification_figure(metrics, "auroc", label="AUROC", chance=0.5)
    image = figure.data[0]
    assert list(image.x) == ["40×", "100×", "200×", "400×", "all"]
    assert image.y[1] == metrics["magnification_100/image/auroc"]
    assert image.y[-1] == metrics["image/auroc"]


def test_magnification_without_the_metric_has_no_bar(make_table):
    table = make_table(
        ["benign", "malignant", "benign"],
        [[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]],
        magnifications=[40, 40, 400],
    )
    figure = magnification_figure(compute_metrics(table), "auroc", label="AUROC", chance=0.5)
    assert list(figure.data[0].y) == [1.0, None, 1.0]


def test_magnification_figure_of_an_undefined_metric_is_not_drawn(make_table):
    metrics = compute_metrics(make_table(["benign"], [[0.9, 0.1]]))
    assert magnification_figure(metrics, "auroc", label="AUROC", chance=0.5) is None


def test_a_bar_without_an_interval_has_no_whisker_not_even_a_short_one():
    metrics = {"image/auroc": 0.8, "magnification_40/image/auroc": 1.0}
    known = {"image/auroc": Interval(0.7, 0.9, n=9, method="bootstrap")}
    figure = magnification_figure(metrics, "auroc", label="AUROC", chance=0.5, intervals=known)
    [bars] = [trace for trace in figure.data if trace.name == "image level"]
    assert list(bars.error_y.array) == ["none", pytest.approx(0.1)], "null would be drawn as 0"
    assert list(bars.error_y.arrayminus) == ["none", pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("task", "kind", "metric"),
    [("binary", "roc", "auroc"), ("multiclass", "pr", "average_precision")],
)
@pytest.mark.parametrize("level", ["image", "patient"])
def test_a_curve_by_magnification_tells_the_metric_of_its_images(
    full_tables, task, kind, metric, level
):
    table = full_tables[task]
    metrics, figure = compute_metrics(table), magnification_curves(table, level, kind)
    names = [trace.name for trace in figure.data if not trace.name.startswith("chance")]
    if task == "binary" and metric == "average_precision":
        metric = "average_precision_malignant"
    parts = {m: table[table["magnification"] == int(m)] for m in ALL}
    n = {
        m: part["image" if level == "image" else "accession"].nunique() for m, part in parts.items()
    }
    assert names == [
        f"{m}× ({n[m]:,} {level}s), {metrics[f'magnification_{m}/{level}/{metric}']:.3f}"
        for m in ALL
    ]
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == len(figure.data)


def test_one_magnification_has_no_comparison(full_tables):
    table = full_tables["binary"]
    one = table[table["magnification"] == 100]
    assert magnification_curves(one, "image", "roc") is None
    assert magnification_confusions(one) == []


def test_confusions_by_magnification_add_up(full_tables):
    table = full_tables["binary"]
    figures = magnification_confusions(table)
    assert [figure.layout.title.text.partition(":")[0] for figure in figures] == [
        f"{m}×" for m in ALL
    ]
    counted = sum(float(cell) for figure in figures for row in figure.data[0].text for cell in row)
    assert counted == len(table)
