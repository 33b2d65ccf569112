"""Splits: disjoint by patient, sealed test a pure function of the accession list."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.catalog import table_from_names
from breakhis_search.data.cohort import join_groups, select_cohort
from breakhis_search.data.leaks import check_split
from breakhis_search.data.splits import Protocol, choose_sealed_test, split_patients
from breakhis_search.data.taxonomy import TUMOR_TYPES, class_names
from breakhis_search.errors import SplitError, SplitLeakageError


@pytest.fixture(scope="module")
def full(names_7909: list[str]) -> pd.DataFrame:
    return table_from_names(names_7909)


def tree(groups: dict[str, list[str]], images: int = 4) -> pd.DataFrame:
    """A table with the given accessions by type code."""
    names = [
        f"SOB_{t.label[0].upper()}_{t.code}-14-{slide}-{m}-{i:03d}.png"
        for t in TUMOR_TYPES
        for slide in groups.get(t.code, [])
        for m in (40, 100)
        for i in range(images)
    ]
    return table_from_names(names)


SMALL = {
    "A": ["1001", "1002", "1003"],
    "F": ["2001", "2002", "2003", "2004"],
    "DC": [str(n) for n in range(3001, 3011)],
    "MC": ["4001", "4002", "4003AB", "4003CD"],
}


def test_sealed_test_of_the_full_list_holds_about_a_fifth_of_the_patients(full):
    sealed = choose_sealed_test(full)
    assert sealed.absent_because is None
    assert len(sealed.groups) == 13
    assert sealed.types_without_test == ("adenosis",)


def test_sealed_test_of_the_full_list_is_the_documented_one(full):
    # Changing this set makes every sealed score ever reported incomparable.
    assert sorted(choose_sealed_test(full).groups) == [
        "14-14015", "14-15570", "14-16448", "14-16875", "14-17614", "14-17901", "14-19440",
        "14-19979", "14-25197", "14-29315", "14-3411", "14-4372", "14-9461",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("magnification", [None, 40, 400])
@pytest.mark.parametrize(("folds", "seed"), [(2, 0), (3, 0), (5, 7)])
def test_sealed_test_does_not_move_with_the_study(full, task, magnification, folds, seed):
    protocol = Protocol(folds=folds, seed=seed)
    split = split_patients(full, task, protocol, magnification=magnification)
    assert set(split.table["group"].iloc[split.test]) == choose_sealed_test(full).groups


def test_sealed_test_does_not_depend_on_the_order_of_the_files(full):
    shuffled = full.sample(frac=1, random_state=3).reset_index(drop=True)
    assert choose_sealed_test(shuffled) == choose_sealed_test(full)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("seed", range(5))
def test_folds_of_the_full_list_partition_the_development_patients(full, task, seed):
    split = split_patients(full, task, Protocol(seed=seed))
    group = split.table["group"].to_numpy()
    scored = np.concatenate([f.validation for f in split.folds])
    assert sorted(scored) == split.development.tolist()
    for fold in split.folds:
        assert not set(group[fold.train]) & set(group[fold.validation])
        assert sorted([*fold.train, *fold.validation]) == split.development.tolist()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_folds_of_the_full_list_are_of_similar_size(full, task):
    sizes = [len(f.validation) for f in split_patients(full, task, Protocol()).folds]
    assert max(sizes) / min(sizes) < 1.35


def test_folds_differ_by_seed_but_not_from_run_to_run(full):
    first, again = (split_patients(full, "binary", Protocol(seed=0)) for _ in range(2))
    other = split_patients(full, "binary", Protocol(seed=1))
    assert first.digest == again.digest != other.digest


def test_multiclass_drops_the_slide_filed_under_two_types(full):
    split = split_patients(full, "multiclass", Protocol())
    assert "14-13412" not in set(split.table["slide"])


def test_binary_keeps_one_copy_of_the_slide_filed_under_two_types(full):
    split = split_patients(full, "binary", Protocol())
    kept = split.table[split.table["slide"] == "14-13412"]
    assert set(kept["type"]) == {"ductal_carcinoma"}
    assert len(kept) == 123
    assert not set(kept["group"]) & choose_sealed_test(full).groups


def test_slide_groups_would_tear_patients_apart(full):
    split = split_patients(full, "binary", Protocol(group_by="slide"))
    accession = split.table["accession"].to_numpy()
    torn = [set(accession[f.train]) & set(accession[f.validation]) for f in split.folds]
    assert any(torn), "the reason the default group is the accession"


def test_pixel_identical_images_join_their_groups():
    table = tree(SMALL)
    table.loc[table["accession"] == "14-1001", "pixel_sha256"] = [f"p{i}" for i in range(8)]
    table.loc[table["accession"] == "14-3001", "pixel_sha256"] = ["p3", *[""] * 7]
    groups = join_groups(table, "accession")
    joined = groups[table["accession"].isin(["14-1001", "14-3001"])]
    assert set(joined) == {"14-1001+14-3001"}


def test_images_get_the_class_of_their_task():
    table = tree(SMALL)
    for task in ("binary", "multiclass"):
        cohort = select_cohort(table, task, group_by="accession")
        names = class_names(task)
        column = "label" if task == "binary" else "type"
        assert [names[y] for y in cohort["y"]] == cohort[column].tolist()


def test_sealed_test_is_absent_with_too_few_benign_patients():
    sealed = choose_sealed_test(tree({"F": ["1", "2", "3", "4"], "DC": SMALL["DC"]}))
    assert sealed.groups == frozenset()
    assert sealed.absent_because == "only 4 benign patients, 5 are needed"


def test_sealed_test_never_holds_a_type_with_two_patients():
    table = tree({**SMALL, "PT": ["5001", "5002"]})
    assert "phyllodes_tumor" in choose_sealed_test(table).types_without_test


def test_a_patient_of_two_types_stays_on_one_side():
    table = tree({**SMALL, "PT": ["2001AB", "5001", "5002"]})
    split = split_patients(table, "multiclass", Protocol(folds=2))
    check_split(split, Protocol(folds=2))
    both = split.table[split.table["accession"] == "14-2001"]
    assert both["type"].nunique() == 2
    assert both["group"].nunique() == 1


def test_too_few_patients_for_the_folds_is_an_error():
    with pytest.raises(SplitError, match=r"too few benign accessions for 9 folds.*received 5"):
        split_patients(tree(SMALL), "binary", Protocol(folds=9))


def test_a_type_with_one_patient_is_an_error_in_multiclass():
    table = tree({**SMALL, "LC": ["6001"]})
    with pytest.raises(SplitError, match="lobular_carcinoma: one accession only.*train_only"):
        split_patients(table, "multiclass", Protocol(folds=2))


def test_a_type_with_one_patient_is_trained_but_never_scored():
    table = tree({**SMALL, "LC": ["6001"]})
    protocol = Protocol(folds=2, on_single_accession_type="train_only")
    split = split_patients(table, "multiclass", protocol)
    rows = np.flatnonzero((split.table["type"] == "lobular_carcinoma").to_numpy())
    for fold in split.folds:
        assert set(rows) <= set(fold.train)
    assert any("never scored" in note for note in split.notes)


def test_a_type_with_one_patient_can_be_dropped():
    table = tree({**SMALL, "LC": ["6001"]})
    protocol = Protocol(folds=2, on_single_accession_type="drop")
    split = split_patients(table, "multiclass", protocol)
    assert "lobular_carcinoma" not in set(split.table["type"])


def test_holdout_validates_the_named_accessions_with_or_without_year():
    protocol = Protocol(
        kind="holdout", validation_accessions=("1001", "14-3001"), sealed_test="none"
    )
    [fold] = split_patients(tree(SMALL), "binary", protocol).folds
    table = split_patients(tree(SMALL), "binary", protocol).table
    assert set(table["accession"].iloc[fold.validation]) == {"14-1001", "14-3001"}
    assert len(fold.train) + len(fold.validation) == len(table)


def test_holdout_of_an_unknown_accession_is_an_error():
    protocol = Protocol(kind="holdout", validation_accessions=("9999",), sealed_test="none")
    with pytest.raises(SplitError, match="names '9999', which has no image here"):
        split_patients(tree(SMALL), "binary", protocol)


def test_holdout_of_a_sealed_patient_is_a_leak():
    table = tree(SMALL)
    sealed = sorted(choose_sealed_test(table).groups)
    names = tuple(sealed[:2]) + tuple({"14-1001", "14-1002", "14-3001", "14-3002"} - set(sealed))
    with pytest.raises(SplitLeakageError, match="sealed test"):
        split_patients(table, "binary", Protocol(kind="holdout", validation_accessions=names))


def test_image_protocol_leaks_patients_but_never_the_sealed_test():
    protocol = Protocol(kind="image")
    split = split_patients(tree(SMALL), "binary", protocol)
    group = split.table["group"].to_numpy()
    fold = split.folds[0]
    assert set(group[fold.train]) & set(group[fold.validation])
    assert not set(group[split.test]) & set(group[split.development])


def test_holdout_never_validates_whom_a_type_can_only_be_learnt_from():
    table = tree({**SMALL, "LC": ["6001"]})
    protocol = Protocol(
        kind="holdout",
        validation_accessions=("1001", "3001"),
        sealed_test="none",
        on_single_accession_type="train_only",
    )
    split = split_patients(table, "multiclass", protocol)
    alone = set(np.flatnonzero((split.table["accession"] == "14-6001").to_numpy()))
    [fold] = split.folds
    assert alone <= set(fold.train)
    assert not alone & set(fold.validation)


def test_holdout_that_names_whom_a_type_can_only_be_learnt_from_is_an_error():
    table = tree({**SMALL, "LC": ["6001"]})
    protocol = Protocol(
        kind="holdout",
        validation_accessions=("1001", "6001"),
        sealed_test="none",
        on_single_accession_type="train_only",
    )
    with pytest.raises(SplitError, match=r"names 14-6001, the only one with lobular_carcinoma"):
        split_patients(table, "multiclass", protocol)


def test_a_type_whose_patients_are_all_held_out_is_told():
    protocol = Protocol(
        kind="holdout", validation_accessions=("1001", "1002", "1003", "3001"), sealed_test="none"
    )
    split = split_patients(tree(SMALL), "multiclass", protocol)
    assert "fold 0 scores what it never trains on: adenosis" in split.notes


def test_splits_of_the_full_list_are_the_documented_ones(full):
    # docs/protocols.md quotes them; changing them starts every study anew.
    digests = {t: split_patients(full, t, Protocol()).digest for t in ("binary", "multiclass")}
    assert digests == {
        "binary": "db666dc77a29865b2a5bc2fe64ee69da52b8d5b1770ec08080e08b311df67b9e",
        "multiclass": "57675385b828ce75570dd2823ab39e4152027e285f002d6461aea0158ed37361",
    }


def test_a_magnification_without_images_is_an_error():
    with pytest.raises(SplitError, match="no image is left.*400X"):
        split_patients(tree(SMALL), "binary", Protocol(), magnification=400)
