"""The strips show every image of every patient once, in order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.taxonomy import class_names
from breakhis_search.evaluation.patient_strips import patient_strips

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def binary(make_table) -> pd.DataFrame:
    """Two benign patients, the second of which is mostly wrong, and a malignant one."""
    malignant = [0.1, 0.3, 0.8, 0.9, 0.2, 0.6]
    return make_table(
        ["benign"] * 5 + ["malignant"],
        [[1 - p, p] for p in malignant],
        accessions=["a", "a", "b", "b", "b", "c"],
    )


def trace(figure, start: str):
    return next(t for t in figure.data if t.name.startswith(start))


def rows_of(figure) -> list[str]:
    return list(figure.layout.yaxis.ticktext)


def test_rows_are_classes_and_their_patients_by_mean_probability(binary):
    labels = [label.partition("<br>")[0] for label in rows_of(patient_strips(binary))]
    assert labels == [
        "<b>benign</b>",
        "a · 2 images",
        "b · 3 images",
        "<b>malignant</b>",
        "c · 1 image",
    ]


def test_images_stand_in_their_patients_row_by_right_and_wrong(binary):
    figure = patient_strips(binary)
    right, wrong = trace(figure, "image, right"), trace(figure, "image, wrong")
    assert sorted(zip(right.y, right.x, strict=True)) == [(1, 0.1), (1, 0.3), (2, 0.2), (4, 0.6)]
    assert sorted(zip(wrong.y, wrong.x, strict=True)) == [(2, 0.8), (2, 0.9)]
    assert list(wrong.customdata) == ["image-002", "image-003"]
    assert right.marker.symbol != wrong.marker.symbol


def test_mean_of_each_patient_is_marked(binary):
    means = trace(patient_strips(binary), "the patient's mean")
    assert list(means.y) == [1, 2, 4]
    np.testing.assert_allclose(means.x, [0.2, 0.633, 0.6])


def test_axis_of_several_classes_is_the_true_class(make_table):
    names = class_names("multiclass")
    table = make_table(["adenosis"], [[0.3, 0.65] + [0.05 / 6] * 6], names=names)
    figure = patient_strips(table)
    assert figure.layout.xaxis.title.text == "p(true class)"
    assert list(trace(figure, "image, wrong").x) == [0.3]
    assert not figure.layout.shapes  # no threshold to draw


def test_image_of_several_seeds_has_one_mark_at_their_mean(binary):
    other = binary.assign(seed=1, logit_malignant=np.float32(0), logit_benign=np.float32(0))
    figure = patient_strips(pd.concat([binary, other]))
    marks = trace(figure, "image, right"), trace(figure, "image, wrong")
    assert sum(len(t.x) for t in marks) == len(binary)
    assert max(max(t.x) for t in marks) == 0.7  # of 0.9 and 0.5


def test_figure_of_the_full_set_is_tall_enough_and_small(full_tables):
    figure = patient_strips(full_tables["multiclass"])
    assert figure.layout.height / len(rows_of(figure)) >= 30
    assert sum(len(t.x) for t in figure.data if t.name.startswith("image")) == 7909
    assert len(figure.to_json()) < 400_000


def test_names_from_outside_are_escaped(binary):
    table = binary.assign(accession=EVIL, image=[f"{EVIL}{i}" for i in range(len(binary))])
    assert "<script>" not in patient_strips(table).to_json()
