"""Metrics of draws are those of tables whose rows are repeated, and draws are what they say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.resampled_metrics import (
    accessions_of,
    average_precisions,
    draw_weights,
    resampled_metrics,
    strata_of,
)

TYPES = ("adenosis", "fibroadenoma", "ductal_carcinoma")


def random_table(make_table, names, *, patients: int = 9, images: int = 5, seed: int = 0):
    """Return a table of two magnifications with coarse scores, so that ties occur."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), images)
    true = [names[index % len(names)] for index in owner]
    scores = np.round(rng.dirichlet(np.ones(len(names)), len(owner)), 1) + 0.05
    return make_table(
        true,
        scores / scores.sum(axis=1, keepdims=True),
        names=names,
        accessions=[f"14-{index}" for index in owner],
        magnifications=[(40, 100)[k % 2] for k in range(len(owner))],
    )


def repeated(table: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Repeat each accession as often as it was drawn; every copy is a patient of its own."""
    parts = [
        table[table["accession"] == name].assign(
            image=lambda rows, k=k: rows["image"] + f"#{k}", accession=f"{name}#{k}"
        )
        for name, weight in zip(accessions_of(table), weights, strict=True)
        for k in range(int(weight))
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("names", [("benign", "malignant"), TYPES])
@pytest.mark.parametrize("seeds", [1, 2])
def test_metrics_of_a_draw_are_those_of_repeated_rows(make_table, names, seeds) -> None:
    table = pd.concat(
        [random_table(make_table, names, seed=seed).assign(seed=seed) for seed in range(seeds)],
        ignore_index=True,
    )
    weights = np.random.default_rng(0).multinomial(9, [1 / 9] * 9, size=12).astype(float)
    values = resampled_metrics(table, weights)
    for draw, drawn in enumerate(weights):
        expected = compute_metrics(repeated(table, drawn))
        found = {name: v[draw] for name, v in values.items() if not np.isnan(v[draw])}
        assert found == pytest.approx(expected)


def test_names_are_those_of_the_metrics(make_table) -> None:
    table = random_table(make_table, ("benign", "malignant"))
    assert set(compute_metrics(table)) <= set(resampled_metrics(table, np.ones((1, 9))))


def test_draws_of_a_class_keep_its_size() -> None:
    weights = draw_weights(np.array([0, 0, 1, 1, 1]), 500, np.random.default_rng(0))
    assert (weights[:, :2].sum(axis=1) == 2).all()
    assert (weights[:, 2:].sum(axis=1) == 3).all()


def test_draws_are_multinomial() -> None:
    # Of three patients each ordered draw has chance 1/27: (1, 1, 1) comes in 6 of them, one
    # patient three times in 3 of them.
    weights = draw_weights(np.zeros(3, dtype=np.int64), 27_000, np.random.default_rng(0))
    outcomes = {"all": 6 / 27, "one thrice": 3 / 27}
    assert (weights == 1).all(axis=1).mean() == pytest.approx(outcomes["all"], abs=0.008)
    assert (weights == 3).any(axis=1).mean() == pytest.approx(outcomes["one thrice"], abs=0.006)


def test_spread_over_draws_is_that_over_all_draws_there_are() -> None:
    # Four patients: the 256 ordered draws are all there are, their deviation is known exactly.
    values = np.array([0.1, 0.4, 0.5, 0.9])
    every = [np.mean(values[list(choice)]) for choice in product(range(4), repeat=4)]
    weights = draw_weights(np.zeros(4, dtype=np.int64), 50_000, np.random.default_rng(0))
    assert (weights @ values / 4).std() == pytest.approx(np.std(every), rel=0.02)


def test_strata_are_the_classes(make_table) -> None:
    table = random_table(make_table, ("benign", "malignant"), patients=14)
    stratum = strata_of(table)
    truth = table.groupby("accession")["y_true"].first().to_numpy()
    assert len(set(zip(stratum, truth, strict=True))) == len(set(stratum)) == 2


def test_rare_classes_are_drawn_as_one(make_table) -> None:
    table = random_table(make_table, TYPES, patients=9)  # three patients of each
    assert len(set(strata_of(table))) == 1


def test_one_rare_class_is_drawn_with_the_next_smallest(make_table) -> None:
    rows = ["adenosis"] * 2 + ["fibroadenoma"] * 6 + ["ductal_carcinoma"] * 9
    table = make_table(rows, [[0.3, 0.3, 0.4]] * 17, names=TYPES)
    stratum = pd.Series(strata_of(table), index=accessions_of(table))
    assert stratum[[str(i) for i in range(8)]].nunique() == 1
    assert stratum[["0", "8"]].nunique() == 2


def test_average_precision_of_a_draw_without_a_positive_is_unknown() -> None:
    labels, scores = np.array([True, False]), np.array([0.9, 0.1])
    found = average_precisions(labels, scores, np.array([0, 1]), np.array([[0.0, 2.0], [1.0, 1.0]]))
    assert np.isnan(found[0])
    assert found[1] == 1.0
