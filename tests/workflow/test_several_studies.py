"""Several studies in one store: side by side, and never mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.comparison.leaderboard import read_leaderboard
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store


class Store:
    """A real store with studies as a search leaves them, but for figures and models."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = open_store(settings)
        self._delivery = Delivery(self.client, settings)

    def add(self, study: str, uid: str, scores: list[float], *, split: str = "split") -> None:
        """Add a study with complete trials of the given scores."""
        tags = {
            keys.STUDY: study,
            keys.STUDY_UID: uid,
            keys.TASK: "binary",
            keys.OBJECTIVE: "auroc",
            keys.SPLIT_DIGEST: split,
            keys.LEAKY: "false",
            keys.STAGE: "search",
            keys.STATE: "complete",
            keys.ARCHITECTURE: "small_cnn",
            keys.SAMPLING: "none",
        }
        self._add(uid, {**tags, keys.ROLE: "study"}, {})
        for number, score in enumerate(scores):
            metrics = {f"{keys.METRIC_OBJECTIVE}/auroc": score, "image/nll": 0.5}
            trial = {**tags, keys.ROLE: "trial", keys.TRIAL_NUMBER: str(number)}
            self._add(f"{uid}-{number}", trial, metrics)

    def _add(self, uid: str, tags: dict[str, str], metrics: dict[str, float]) -> None:
        journal = Journal(self.settings.journal_dir / uid)
        journal.begin(name=uid, tags=tags, parent_uid=None, experiment="breakhis-binary")
        journal.log_metrics(metrics)
        journal.finish("FINISHED")
        self._delivery.deliver(journal)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Store(read_settings())


def compared(capsys: pytest.CaptureFixture[str], *studies: str) -> str:
    options = [word for study in studies for word in ("--study", study)]
    assert run_app(["compare", *options]) == 0
    return capsys.readouterr().out


DIFFERENT = "These studies split differently: their scores do not compare."
SHARED = "Several studies in this store are called binary@v1: the newest is shown."


def test_a_study_of_the_same_name_with_a_new_identity_does_not_mix_trials(store):
    store.add("binary@v1", "uid-old", [0.9, 0.8])
    store.add("binary@v1", "uid-new", [0.6])
    board = read_leaderboard(store.client, ["binary@v1"], study_uid="uid-new")
    assert board["score"].tolist() == [0.6]
    assert set(board["study_uid"]) == {"uid-new"}


def test_studies_that_share_a_name_are_pointed_out(store, capsys):
    store.add("binary@v1", "uid-old", [0.9])
    store.add("binary@v1", "uid-new", [0.6])
    assert SHARED in compared(capsys, "binary")


def test_studies_on_different_splits_are_pointed_out(store, capsys):
    store.add("binary@v1", "uid1", [0.9], split="one")
    store.add("binary@v2", "uid2", [0.6], split="another")
    out = compared(capsys, "binary@v1", "binary@v2")
    assert DIFFERENT in out
    assert SHARED not in out
    assert "0.9000" in out
    assert "0.6000" in out


def test_studies_on_one_split_are_compared_without_a_warning(store, capsys):
    store.add("binary@v1", "uid1", [0.9, 0.7])
    store.add("quick@v1", "uid2", [0.8])
    out = compared(capsys, "binary", "quick")
    assert DIFFERENT not in out
    assert SHARED not in out


def test_a_name_without_a_version_means_the_newest_version(store, capsys):
    store.add("binary@v2", "uid2", [0.6])
    store.add("binary@v10", "uid10", [0.7])
    out = compared(capsys, "binary")
    assert "binary@v10" in out
    assert "0.6000" not in out
