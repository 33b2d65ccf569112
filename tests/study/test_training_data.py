"""No fold is trained on rows that leak, whoever put them together."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from breakhis_search.config import ProtocolConfig
from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.protocol import Split
from breakhis_search.data.splits import Protocol, split_patients
from breakhis_search.errors import SplitLeakageError
from breakhis_search.study.candidate import training_data
from breakhis_search.study.records import protocol_in_words


@pytest.fixture
def split() -> Split:
    names = [
        f"SOB_{code}-14-{first + n}-40-001.png"
        for code, first, patients in (("B_F", 1000, 8), ("M_DC", 2000, 12))
        for n in range(patients)
    ]
    return split_patients(table_from_names(names), "binary", Protocol())


def make_context(split: Split, kind: str = "folds") -> Any:
    """As much of a study's context as the rows of a fold need."""
    config = SimpleNamespace(protocol=ProtocolConfig.model_validate({"kind": kind}))
    images = np.zeros((len(split.table), 4, 6, 3), np.uint8)
    names = ("benign", "malignant")
    return SimpleNamespace(config=config, split=split, images=images, class_names=names)


def test_sound_fold_is_given_to_training(split):
    development = split.development_only()
    fold = development.folds[0]
    data = training_data(make_context(development), fold.train, fold.validation)
    assert len(data.images) == len(development.table) < len(split.table)
    assert data.validation_y.tolist() == development.table["y"].iloc[fold.validation].tolist()


def test_context_with_sealed_images_cannot_train(split):
    fold = split.folds[0]
    with pytest.raises(SplitLeakageError, match="patients of the sealed test are among"):
        training_data(make_context(split), fold.train, fold.validation)


def test_shared_patient_cannot_be_trained_on(split):
    development = split.development_only()
    fold = development.folds[0]
    group = development.table["group"].to_numpy().copy()
    group[fold.validation[0]] = group[fold.train[0]]
    table = development.table.assign(group=group)
    leaky = make_context(replace(development, table=table))
    with pytest.raises(SplitLeakageError, match="patients of validation are also trained on"):
        training_data(leaky, fold.train, fold.validation)


def test_leaky_protocol_may_train_on_shared_patients(split):
    by_image = split_patients(split.table.drop(columns=["patient", "group"]), "binary", Protocol())
    development = by_image.development_only()
    train = np.arange(0, len(development.table), 2)
    validation = np.arange(1, len(development.table), 2)
    data = training_data(make_context(development, "image"), train, validation)
    assert len(data.train) == len(train)


def test_official_protocol_is_told_in_words(split):
    words = protocol_in_words(make_context(split, "official"))
    assert words.startswith("Spanhol's five official folds")
    assert words.endswith("by accession (patient), no sealed test")
