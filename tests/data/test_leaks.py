"""Planted leaks are caught, each by its guard, and sound splits pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.leaks import (
    check_development_only,
    check_images_once,
    check_split,
    check_training,
)
from breakhis_search.data.protocol import Fold, IntArray, Split
from breakhis_search.data.splits import Protocol, split_patients
from breakhis_search.errors import SplitLeakageError


def make_table() -> pd.DataFrame:
    """Eight benign and twelve malignant patients with two images each, all pictures distinct."""
    names = [
        f"SOB_{code}-14-{first + n}-40-{i:03d}.png"
        for code, first, patients in (("B_F", 1000, 8), ("M_DC", 2000, 12))
        for n in range(patients)
        for i in (1, 2)
    ]
    table = table_from_names(names)
    return table.assign(pixel_sha256=[f"pixels {i}" for i in range(len(table))])


@pytest.fixture
def split() -> Split:
    return split_patients(make_table(), "binary", Protocol())


def plant(split: Split, *, train: IntArray | None = None, test: IntArray | None = None) -> Split:
    """The split with other training rows in its first fold, or another sealed test."""
    first = split.folds[0]
    fold = first if train is None else Fold(train, first.validation)
    return replace(split, folds=(fold, *split.folds[1:]), test=split.test if test is None else test)


def check_first_fold(split: Split, *, n_images: int | None = None) -> None:
    fold = split.folds[0]
    check_training(
        split,
        fold.train,
        fold.validation,
        n_images=len(split.table) if n_images is None else n_images,
        patients_may_leak=False,
    )


def test_sound_split_passes(split):
    check_split(split, Protocol())
    check_first_fold(split.development_only())


# --- 1: a shared accession -------------------------------------------------------------------


def test_shared_accession_is_caught_in_the_split(split):
    first = split.folds[0]
    leaky = plant(split, train=np.append(first.train, first.validation[0]))
    one_image_moved = replace(leaky.folds[0], validation=first.validation[1:])
    leaky = replace(leaky, folds=(one_image_moved, *leaky.folds[1:]))
    with pytest.raises(SplitLeakageError, match="fold 0: patients of validation are also trained"):
        check_split(leaky, Protocol())


def test_shared_accession_is_caught_before_training(split):
    development = split.development_only()
    first = development.folds[0]
    train, validation = np.append(first.train, first.validation[0]), first.validation[1:]
    with pytest.raises(SplitLeakageError, match="patients of validation are also trained on"):
        check_training(
            development, train, validation, n_images=len(development.table), patients_may_leak=False
        )


# --- 2: a duplicate image --------------------------------------------------------------------


def with_copy(split: Split, source: int, target: int) -> Split:
    """The split with the picture of one row under the path of another, groups not joined."""
    pixels = split.table["pixel_sha256"].tolist()
    pixels[target] = pixels[source]
    return replace(split, table=split.table.assign(pixel_sha256=pixels))


def test_pixel_identical_image_on_both_sides_is_caught(split):
    first = split.folds[0]
    leaky = with_copy(split, source=first.train[0], target=first.validation[0])
    with pytest.raises(SplitLeakageError, match="fold 0: one picture is trained on and scored"):
        check_split(leaky, Protocol())


def test_pixel_identical_image_is_caught_before_training(split):
    development = split.development_only()
    first = development.folds[0]
    leaky = with_copy(development, source=first.train[0], target=first.validation[0])
    with pytest.raises(SplitLeakageError, match="one picture is trained on and scored"):
        check_first_fold(leaky)


def test_picture_of_the_sealed_test_in_a_fold_is_caught(split):
    leaky = with_copy(split, source=split.test[0], target=split.folds[0].train[0])
    with pytest.raises(SplitLeakageError, match="pictures of the sealed test are also trained"):
        check_split(leaky, Protocol())


def test_same_path_on_both_sides_is_caught(split):
    first = split.folds[0]
    leaky = plant(split, train=np.append(first.train, first.validation[0]))
    with pytest.raises(SplitLeakageError, match="fold 0: images stand in it more than once"):
        check_split(leaky, Protocol())


# --- 3: a sealed patient in the image cache ---------------------------------------------------


def test_sealed_patient_among_the_cached_images_is_caught(split):
    # The whole table, as if every image had been decoded into the cache.
    with pytest.raises(SplitLeakageError, match="sealed test are among the images of the search"):
        check_first_fold(split)


def test_sealed_patient_in_a_fold_is_caught(split):
    leaky = plant(split, train=np.append(split.folds[0].train, split.test[0]))
    with pytest.raises(SplitLeakageError, match="patients of the sealed test are also trained"):
        check_split(leaky, Protocol())


def test_images_that_are_not_those_of_the_rows_are_caught(split):
    development = split.development_only()
    with pytest.raises(SplitLeakageError, match=r"do not belong together.*40 images for"):
        check_first_fold(development, n_images=len(split.table))


def test_development_only_holds_no_sealed_patient_and_the_same_folds(split):
    development = split.development_only()
    check_development_only(development.table, split.sealed)
    assert len(split.test) > 0
    assert development.test.size == 0
    assert development.digest == split.digest
    assert development.development.tolist() == list(range(len(development.table)))
    for mine, theirs in zip(development.folds, split.folds, strict=True):
        for side in ("train", "validation"):
            paths = development.table["path"].iloc[getattr(mine, side)]
            assert paths.tolist() == split.table["path"].iloc[getattr(theirs, side)].tolist()


# --- 4: resampling before the split ------------------------------------------------------------


def oversampled(table: pd.DataFrame) -> pd.DataFrame:
    """Benign images twice, as a careless balancing would give."""
    return pd.concat([table, table[table["label"] == "benign"]], ignore_index=True)


def test_oversampled_table_is_caught_when_it_is_split():
    with pytest.raises(SplitLeakageError, match="more than once, as after resampling"):
        split_patients(oversampled(make_table()), "binary", Protocol())


def test_oversampled_table_is_caught_by_the_leaky_protocol_too():
    with pytest.raises(SplitLeakageError, match="more than once, as after resampling"):
        split_patients(oversampled(make_table()), "binary", Protocol(kind="image"))


def test_oversampled_rows_of_a_fold_are_caught(split):
    first = split.folds[0]
    leaky = plant(split, train=np.append(first.train, first.train[:5]))
    with pytest.raises(SplitLeakageError, match="fold 0: images stand in it more than once"):
        check_split(leaky, Protocol())


def test_every_image_once_passes():
    check_images_once(make_table())


# --- leaks by definition -----------------------------------------------------------------------


def test_image_protocol_may_share_patients(split):
    by_image = split_patients(make_table(), "binary", Protocol(kind="image"))
    check_split(by_image, Protocol(kind="image"))
    with pytest.raises(SplitLeakageError, match="patients of validation are also trained on"):
        check_split(by_image, Protocol())


def test_image_of_an_official_test_that_is_trained_on_is_caught(split):
    first = split.folds[0]
    leaky = replace(first, official_test=first.train[:1])
    with pytest.raises(SplitLeakageError, match="images of its official test are trained on"):
        check_split(replace(split, folds=(leaky, *split.folds[1:])), Protocol())
