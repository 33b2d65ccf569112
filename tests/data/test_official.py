"""The official protocol: fold files read strictly, validation carved out, leaks named."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.official import check_official_images, leaks_in_words, leaks_of
from breakhis_search.data.official_files import (
    N_FOLDS,
    OfficialFolds,
    load_official_folds,
    places_of_folds,
)
from breakhis_search.data.splits import Protocol, Split, split_patients
from breakhis_search.errors import SplitError

PROTOCOL = Protocol(kind="official")


def slide_folder(name: str) -> str:
    """The unit Spanhol drew by: a slide under a type."""
    return name.rsplit("-", 2)[0]


def draw_sides(names: list[str], seed: int = 0) -> list[dict[str, str]]:
    """Folds as the published ones were made: 30 % of each type's slide folders test."""
    rng = random.Random(seed)
    by_type: dict[str, list[str]] = {}
    for folder in sorted({slide_folder(n) for n in names}):
        by_type.setdefault(folder.split("-")[0], []).append(folder)
    folds = []
    for _ in range(N_FOLDS):
        test = {f for fs in by_type.values() for f in rng.sample(fs, max(1, round(0.3 * len(fs))))}
        folds.append({n: "test" if slide_folder(n) in test else "train" for n in names})
    return folds


def magnification_of(name: str) -> str:
    return name.split("-")[-2]


def write_texts(folder: Path, folds: list[dict[str, str]]) -> Path:
    """As in mkfold.tar.gz: training before test, carriage returns."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, sides in enumerate(folds, start=1):
        lines = [
            f"{name}|{magnification_of(name)}|{number}|{side}"
            for name, side in sorted(sides.items(), key=lambda item: item[1], reverse=True)
        ]
        file = folder / f"dsfold{number}.txt"
        file.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return folder


def write_csv(folder: Path, folds: list[dict[str, str]]) -> Path:
    """As in the Kaggle copy: whole paths."""
    with (folder / "Folds.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "mag", "grp", "filename"])
        for number, sides in enumerate(folds, start=1):
            for name, side in sides.items():
                path = f"BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/{name}"
                writer.writerow([number, magnification_of(name), side, path])
    return folder


@pytest.fixture(scope="module")
def full(names_7909: list[str]) -> pd.DataFrame:
    return table_from_names(names_7909)


@pytest.fixture(scope="module")
def official(names_7909: list[str]) -> OfficialFolds:
    return OfficialFolds("generated", tuple(draw_sides(names_7909)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def split(full: pd.DataFrame, official: OfficialFolds) -> Split:
    return split_patients(full, "binary", PROTOCOL, official=official)


@pytest.fixture
def folds() -> list[dict[str, str]]:
    names = ["SOB_B_A-14-22549AB-40-001.png", "SOB_M_DC-14-2523-100-001.png"]
    return draw_sides(names)


# --- files -----------------------------------------------------------------------------------


def test_published_text_form_is_read(tmp_path, folds):
    write_texts(tmp_path, folds)
    read = load_official_folds([tmp_path])
    assert [dict(sides) for sides in read.sides] == folds
    assert read.source == "dsfold1.txt … dsfold5.txt"


def test_kaggle_form_gives_the_same_folds(tmp_path, folds):
    write_csv(tmp_path, folds)
    read = load_official_folds([tmp_path])
    assert [dict(sides) for sides in read.sides] == folds
    assert read.source == "Folds.csv"


def test_full_list_reads_the_same_from_both_forms(tmp_path, names_7909):
    drawn = draw_sides(names_7909)
    (tmp_path / "csv").mkdir()
    texts = load_official_folds([write_texts(tmp_path / "text", drawn)])
    kaggle = load_official_folds([write_csv(tmp_path / "csv", drawn)])
    assert texts.sides == kaggle.sides
    assert {len(sides) for sides in texts.sides} == {7909}


@pytest.mark.parametrize("place", ["", "mkfold", "BreaKHis_v1", "BreaKHis_v1/mkfold"])
def test_folds_are_found_between_data_folder_and_images(tmp_path, folds, place):
    root = tmp_path / "BreaKHis_v1" / "histology_slides" / "breast"
    root.mkdir(parents=True)
    write_texts(tmp_path / place, folds)
    assert len(load_official_folds(places_of_folds(tmp_path, root)).sides) == N_FOLDS


@pytest.mark.parametrize("name", [".", "dsfold3.txt"])
def test_named_folds_go_before_found_ones(tmp_path, folds, name):
    write_texts(tmp_path / "named", folds)
    read = load_official_folds([tmp_path], folds_file=str(tmp_path / "named" / name))
    assert read.source == "dsfold1.txt … dsfold5.txt"


def test_missing_files_are_an_error_that_says_where_to_get_them(tmp_path):
    with pytest.raises(SplitError, match=r"which are not there.*mkfold\.tar\.gz.*folds_file=PATH"):
        load_official_folds([tmp_path])


def test_one_missing_text_file_is_named(tmp_path, folds):
    (write_texts(tmp_path, folds) / "dsfold4.txt").unlink()
    with pytest.raises(SplitError, match=r"incomplete.*received no dsfold4\.txt"):
        load_official_folds([tmp_path])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("SOB_B_A-14-22549AB-40-001.png|40|1", "train or test"),
        ("SOB_B_A-14-22549AB-40-001.png|40|1|valid", "train or test"),
        ("SOB_B_A-14-22549AB-40-001.png|40|6|train", "train or test"),
        ("SOB_B_A-14-22549AB-40-001.png|100|1|train", "magnification 40, as in the name"),
        ("SOB_B_A-14-22549AB-40-001.png|40|2|train", "fold 1 in this file"),
        ("cat.png|40|1|train", "the name of a BreaKHis image"),
        ("SOB_M_DC-14-2523-100-001.png|100|1|test", "each image once in fold 1"),
    ],
)
def test_malformed_line_is_named_by_file_and_number(tmp_path, folds, line, expected):
    write_texts(tmp_path, folds)
    file = tmp_path / "dsfold1.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(SplitError, match=rf"dsfold1\.txt:3: this line.*{expected}"):
        load_official_folds([tmp_path])


def test_malformed_csv_line_is_named_by_number(tmp_path, folds):
    file = write_csv(tmp_path, folds) / "Folds.csv"
    file.write_text(file.read_text().replace("test", "Test", 1))
    first = 2 + next(i for i, s in enumerate(v for f in folds for v in f.values()) if s == "test")
    with pytest.raises(SplitError, match=rf"Folds\.csv:{first}: this line.*Test"):
        load_official_folds([tmp_path])


def test_csv_without_its_columns_is_an_error(tmp_path):
    (tmp_path / "Folds.csv").write_text("fold,image\n1,a.png\n")
    with pytest.raises(SplitError, match=r"Folds\.csv:1: .*filename, mag, fold, grp"):
        load_official_folds([tmp_path])


def test_csv_with_four_folds_is_an_error(tmp_path, folds):
    write_csv(tmp_path, folds[:4])
    with pytest.raises(SplitError, match="no image in fold 5"):
        load_official_folds([tmp_path])


# --- folds and data --------------------------------------------------------------------------


def test_image_that_no_fold_names_is_an_error(full, official):
    extra = [*names_of(full), "SOB_B_F-14-9133-40-099.png"]
    with pytest.raises(SplitError, match=r"fold 1 .* leaves out .* SOB_B_F-14-9133-40-099\.png"):
        check_official_images(official, table_from_names(extra), on_missing="skip")


def test_image_that_the_data_lacks_is_an_error_unless_skipped(full, official):
    part = table_from_names(names_of(full)[:-3])
    with pytest.raises(SplitError, match=r"names images that the data lacks.*on_bad_image=skip"):
        check_official_images(official, part, on_missing="error")
    [note] = check_official_images(official, part, on_missing="skip")
    assert note.startswith("3 images of the official folds are not in the data")


def test_folds_that_fit_the_data_need_no_note(full, official):
    assert check_official_images(official, full, on_missing="error") == ()


def names_of(table: pd.DataFrame) -> list[str]:
    return [Path(path).name for path in table["path"]]


# --- the split -------------------------------------------------------------------------------


def test_tests_are_the_official_ones(split, official):
    names = np.array(names_of(split.table))
    for fold, sides in zip(split.folds, official.sides, strict=True):
        wanted = {n for n in names if sides[n] == "test"}
        assert set(names[fold.official_test]) == wanted
        assert set(names[fold.train]) | set(names[fold.validation]) == set(names) - wanted


def test_every_image_is_validated_at_most_once_and_nearly_all_are(split):
    scored = np.concatenate([fold.validation for fold in split.folds])
    assert len(scored) == len(np.unique(scored)) > 0.95 * len(split.table)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("seed", range(3))
def test_no_patient_is_trained_on_and_validated(full, names_7909, task, seed):
    folds = OfficialFolds("generated", tuple(draw_sides(names_7909, seed)))  # type: ignore[arg-type]
    split = split_patients(full, task, PROTOCOL, official=folds)
    accession = split.table["accession"].to_numpy()
    for fold in split.folds:
        assert not set(accession[fold.train]) & set(accession[fold.validation])


def test_patients_that_the_official_tests_leak_are_named(split):
    table = split.table
    for fold, shared in zip(split.folds, leaks_of(split), strict=True):
        kept = np.concatenate([fold.train, fold.validation])
        both = set(table["accession"].iloc[kept]) & set(table["accession"].iloc[fold.official_test])
        assert shared == tuple(sorted(both))
    words = leaks_in_words(split)
    assert words is not None
    assert words.startswith("official fold 1: 14-")
    assert any(words in note for note in split.notes)


def test_folds_drawn_by_accession_leak_nothing(full, names_7909):
    accessions = sorted(set(full["accession"]))
    chosen = [set(accessions[f::N_FOLDS]) for f in range(N_FOLDS)]
    accession_of = dict(zip(names_of(full), full["accession"], strict=True))
    sides: list[Mapping[str, str]] = [
        {n: "test" if accession_of[n] in test else "train" for n in names_7909} for test in chosen
    ]
    folds = OfficialFolds("by accession", tuple(sides))  # type: ignore[arg-type]
    split = split_patients(full, "binary", PROTOCOL, official=folds)
    assert leaks_in_words(split) is None


def test_there_is_no_sealed_test_and_it_is_said(split):
    assert split.test.size == 0
    assert split.notes[0].startswith("no sealed test: the official protocol has none")


def test_digest_depends_on_the_official_tests(full, names_7909, split):
    other = OfficialFolds("generated", tuple(draw_sides(names_7909, 1)))  # type: ignore[arg-type]
    assert split_patients(full, "binary", PROTOCOL, official=other).digest != split.digest


def test_other_protocols_take_no_official_folds(full, official):
    with pytest.raises(ValueError, match="for kind: official, and only there"):
        split_patients(full, "binary", Protocol(), official=official)
    with pytest.raises(ValueError, match="for kind: official, and only there"):
        split_patients(full, "binary", PROTOCOL)


def test_real_images_split_by_generated_official_folds(real_data, tmp_path):
    table = table_from_names(file.name for file in real_data.rglob("SOB_*.png"))
    write_texts(tmp_path / "folds", draw_sides(names_of(table)))
    official = load_official_folds([tmp_path / "folds"])
    assert check_official_images(official, table, on_missing="error") == ()
    split = split_patients(table, "binary", PROTOCOL, official=official)
    for fold in split.folds:
        assert min(len(fold.train), len(fold.validation), len(fold.official_test)) > 0
    with pytest.raises(SplitError, match="no benign image in validation.*more patients"):
        # Five benign patients at 100X are too few for five validation sets.
        split_patients(table, "binary", PROTOCOL, magnification=100, official=official)
