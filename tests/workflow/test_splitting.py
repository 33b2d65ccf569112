"""What the user is told of a split before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.config import StudyConfig
from breakhis_search.data.catalog import Catalog, read_catalog
from breakhis_search.data.demo import make_demo
from breakhis_search.errors import SplitError
from breakhis_search.workflow.splitting import split_catalog

STUDY = {"name": "small", "task": "binary", "objective": "auroc"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splitting") / "data"
    return make_demo(folder, images_per_slide=1, height_px=48, width_px=72)


@pytest.fixture
def folder(tmp_path: Path, pristine: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def catalog_of(folder: Path) -> Catalog:
    return read_catalog(folder, cache_dir=folder.parent / "cache")


def config_of(**protocol: object) -> StudyConfig:
    return StudyConfig.model_validate({**STUDY, "protocol": protocol})


def plant_copy(folder: Path) -> None:
    """Save one patient's picture again as another patient's."""
    first, *_, last = sorted(folder.rglob("*.png"))
    pixels = cv2.imread(str(first))
    assert pixels is not None
    data = cv2.imencode(".png", np.clip(pixels.astype(int) + 5, 0, 255).astype(np.uint8))[1]
    last.write_bytes(data.tobytes())


def test_run_is_told_of_near_duplicates(folder):
    plant_copy(folder)
    split = split_catalog(catalog_of(folder), config_of(), folder=folder)
    assert split.notes[-1] == (
        "two patients have pictures that look alike, which may leak: `data check` names them"
    )


def test_sound_data_needs_no_note_of_near_duplicates(folder):
    split = split_catalog(catalog_of(folder), config_of(), folder=folder)
    assert not any("look alike" in note for note in split.notes)


def test_official_folds_are_asked_for_where_the_data_is(folder):
    with pytest.raises(SplitError, match=rf"neither in {folder.resolve()}"):
        split_catalog(catalog_of(folder), config_of(kind="official"), folder=folder)


def test_folds_file_is_for_the_official_protocol_only():
    with pytest.raises(ValueError, match="folds_file is for kind: official only"):
        config_of(folds_file="Folds.csv")


def test_folds_file_is_no_part_of_what_a_study_is():
    named = config_of(kind="official", folds_file="Folds.csv")
    assert named.model_dump() == config_of(kind="official").model_dump()


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ({}, None),
        ({"kind": "image"}, "leaks patients"),
        ({"group_by": "slide"}, "leaks patients"),
        ({"kind": "official"}, "comparison with the literature"),
    ],
)
def test_protocols_whose_models_are_never_registered(protocol, reason):
    because = config_of(**protocol).protocol.unregistrable_because
    assert because is None if reason is None else reason in str(because)
