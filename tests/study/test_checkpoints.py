"""Checkpoints on disk: whole or not at all, the newest one, gone at the end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.study.checkpoints import CheckpointFiles
from breakhis_search.training.results import EpochReport, FoldResult
from breakhis_search.training.snapshots import Snapshot
from breakhis_search.training.state import FoldState, Part

REPORTS = tuple(EpochReport(i, "all", 0.5 - i / 10, 0.6, None, 1e-3) for i in range(3))


def state(epochs: int) -> FoldState:
    rng = np.random.default_rng(3)
    rng.random(epochs)
    return FoldState(
        "all",
        REPORTS[:epochs],
        Part({"0": np.full((2, 2), epochs, np.float32)}, {"rng": rng.bit_generator.state}),
        Part({}, {"best": [0.25, -0.5], "best_epoch": 1, "waited": 0, "keeps": False}),
    )


def model(units: int = 2) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units)])


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    return CheckpointFiles(tmp_path / "checkpoints")


def test_a_state_comes_back_as_it_was(files):
    files.of("run").keep_state("seed_0/fold_1", state(2))
    files.settle()
    found = files.of("run").state("seed_0/fold_1")
    assert found.history == REPORTS[:2]
    assert found.span == "all"
    np.testing.assert_array_equal(found.phase.arrays["0"], np.full((2, 2), 2))
    assert dict(found.phase.facts) == dict(state(2).phase.facts)
    assert dict(found.best.facts) == dict(state(2).best.facts)
    assert files.of("run").state("seed_0/fold_0") is None
    assert files.of("another").state("seed_0/fold_1") is None


def test_the_newest_state_counts_and_only_one_is_kept(files, tmp_path):
    for epochs in (1, 2, 3):
        files.of("run").keep_state("fold_0", state(epochs))
    files.settle()
    assert files.of("run").state("fold_0").epochs == 3
    assert len(list((tmp_path / "checkpoints" / "run").iterdir())) == 1


@pytest.mark.parametrize("weights", [True, False])
def test_a_finished_fold_takes_the_place_of_its_state(files, weights):
    core = model()
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    result = FoldResult(REPORTS, 2, logits, Snapshot.take(core.variables[:1]))
    run = files.of("run")
    run.keep_state("fold_0", state(3))
    run.keep_fold("fold_0", result, core, weights=weights)
    files.settle()
    other = model()
    other.variables[0].assign(np.zeros((3, 2)))
    found = run.fold("fold_0", other)
    assert (found.history, found.best_epoch) == (REPORTS, 2)
    np.testing.assert_array_equal(found.logits, logits)
    found.kept.put()
    was_put = bool(np.array(other.variables[0]).any())
    assert was_put == weights
    assert run.state("fold_0") is None


def test_a_fold_of_another_graph_is_not_found(files):
    core = model()
    result = FoldResult(REPORTS, 2, None, Snapshot.take(core.variables))
    files.of("run").keep_fold("fold_0", result, core, weights=True)
    files.settle()
    assert files.of("run").fold("fold_0", model(units=5)) is None


@pytest.mark.parametrize("damage", ["half", "empty", "other format"])
def test_a_damaged_file_does_not_count(files, tmp_path, damage, monkeypatch):
    if damage == "other format":
        monkeypatch.setattr("breakhis_search.study.checkpoints.FORMAT", 0)
    files.of("run").keep_state("fold_0", state(1))
    files.settle()
    monkeypatch.undo()
    [file] = (tmp_path / "checkpoints" / "run").iterdir()
    content = file.read_bytes()
    if damage != "other format":
        file.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    assert files.of("run").state("fold_0") is None


def test_a_run_that_ends_leaves_nothing(files, tmp_path):
    files.of("run").keep_state("fold_0", state(1))
    files.of("run").drop()
    assert not (tmp_path / "checkpoints" / "run").exists()
    files.of("never begun").drop()


def test_a_full_disk_is_told_and_leaves_no_half_file(files, tmp_path, monkeypatch):
    def no_space(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files.of("run").keep_state("fold_0", state(1))
    files.settle()
    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.study.checkpoints.os.fsync", no_space)
        files.of("run").keep_state("fold_0", state(2))
        with pytest.raises(TrackingError, match="cannot be written .No space left"):
            files.settle()
    assert files.of("run").state("fold_0").epochs == 1, "the older one is still whole"
    assert [f.suffix for f in (tmp_path / "checkpoints" / "run").iterdir()] == [".npz"]


def test_what_is_left_of_runs_that_ended_is_swept_up(files, tmp_path):
    files.sweep({"nothing is there yet"})
    for uid in ("ended", "at-work"):
        files.of(uid).keep_state("fold_0", state(1))
    files.settle()
    files.sweep({"ended", "another"})
    assert [f.name for f in (tmp_path / "checkpoints").iterdir()] == ["at-work"]


@pytest.mark.parametrize("damage", [None, "half", "empty", "another type"])
def test_seconds_of_a_run_are_kept_beside_its_state(files, tmp_path, damage):
    files.of("run").note_seconds({"train": 2.0, "total": 3.0})
    file = tmp_path / "checkpoints" / "run" / "seconds.json"
    if damage:
        file.write_text({"half": '{"train": 2.', "empty": "", "another type": "3"}[damage])
    assert files.of("run").seconds() == ({} if damage else {"train": 2.0, "total": 3.0})
    assert files.of("another").seconds() == {}
    assert files.of("run").epochs() == 0, "no state, and no fold"
    files.of("run").drop()
    assert files.of("run").seconds() == {}
