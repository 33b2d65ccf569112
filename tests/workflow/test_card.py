"""Model card and decision log of a version that a real search registered."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from breakhis_search.errors import RegistryError
from breakhis_search.reporting.attach import attach_paper_trail
from breakhis_search.study_file import load_study
from breakhis_search.tracking import keys

NAME = "breakhis-binary-demo"


@pytest.fixture(scope="module")
def texts(searched):
    """The documents that the run kept with its version."""
    version = searched.client.get_model_version_by_alias(NAME, "champion")
    folder = searched.client.download_artifacts(version.run_id, "paper_trail")
    return {file.name: file.read_text() for file in Path(folder).iterdir()}


def test_run_keeps_both_documents_with_the_version(searched, texts):
    assert set(texts) == {"model_card.md", "decision_log.md"}
    version = searched.client.get_model_version_by_alias(NAME, "champion")
    assert version.run_id in version.tags[keys.MODEL_CARD]
    assert "never opened" in version.description
    assert "out-of-fold image/auroc" in version.description


def test_card_says_what_was_measured(searched, texts):
    card = texts["model_card.md"]
    version = searched.client.get_model_version_by_alias(NAME, "champion")
    metrics = searched.client.get_run(version.tags[keys.EVIDENCE_RUN]).data.metrics
    [auroc] = [line for line in card.splitlines() if line.startswith("| AUROC |")]
    assert auroc.split("|")[2].strip().startswith(f"{metrics['image/auroc']:.3f} ")
    assert version.tags[keys.WHY_SELECTED].split(" is selected")[0] in card
    for key in (keys.DATA_FINGERPRINT, keys.SPLIT_DIGEST, keys.MODEL_SHA256, keys.GIT_COMMIT):
        assert version.tags[key] in card
    assert "3 trials of the search (3 complete)" in card
    assert "Never opened for this version" in card


def test_card_of_the_demo_is_marked_and_complete(texts):
    card = texts["model_card.md"]
    assert "SYNTHETIC DEMO DATA" in card
    assert "Not a medical device" in card
    assert not re.search(r"\b(nan|NaN|None|True|False)\b", card.partition("Hyperparameters")[0])
    assert not re.search(r"\b(nan|NaN|None)\b", card.partition("## Scores")[2])
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert "## Limitations" in headings
    for heading, after in pairwise(headings):
        body = card.split(heading + "\n")[1].split(after + "\n")[0]
        assert len(body.split("\n\n")) >= 2, f"{heading} is empty"


def test_log_tells_the_way_to_the_champion_in_order(texts):
    log = texts["decision_log.md"]
    places = [
        log.index(words)
        for words in (
            "study binary-demo@v1 begun",
            "search ended",
            "finalists begun",
            "selected, registered",
            "1 champion",
        )
    ]
    assert places == sorted(places)


def test_study_that_was_run_can_be_loaded_again(searched, tmp_path):
    version = searched.client.get_model_version_by_alias(NAME, "champion")
    run = version.tags[keys.EVIDENCE_RUN]
    file = Path(searched.client.download_artifacts(run, keys.ARTIFACT_CONFIG, str(tmp_path)))
    config = load_study(file)
    assert (config.data.height_px, config.protocol.folds) == (32, 2)
    assert config.registration.floors == {"image/auroc": 0.01}


def test_card_names_what_the_trials_tried(texts):
    card = texts["model_card.md"]
    [row] = [
        line for line in card.splitlines() if line.startswith("| optimizer/learning_rate | 0.0003")
    ]
    assert "0.0003 to 0.003, log scale" in row
    assert row.count("(1)") == 3


def test_card_has_the_bounds_that_the_study_file_leaves_to_the_code(texts):
    card = texts["model_card.md"]
    assert "| optimizer/weight_decay | 1e-06 to 0.01, log scale | " in card
    assert "| sampling/strategy | none, " in card
    assert "as the code declares" not in card


def test_command_writes_the_same_documents(searched, texts, tmp_path, capsys):
    command = ["card", "--study", "binary", "--demo"]
    assert searched.run(*command, "--out", str(tmp_path / "trail")) == 0
    assert (tmp_path / "trail" / "decision_log.md").read_text() == texts["decision_log.md"]
    capsys.readouterr()
    assert searched.run(*command, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["demo"] is True
    assert answer["documents"][keys.ARTIFACT_CARD] == texts["model_card.md"]


def test_card_without_a_version_is_one_line(home, capsys):
    assert home.run("card", "--study", "binary") == 1
    error = capsys.readouterr().err
    assert "neither champion nor challenger" in error
    assert "run the study" in error


@pytest.mark.parametrize(
    "error", [RegistryError("the evidence is gone"), KeyError("breakhis.study"), ValueError()]
)
def test_card_that_cannot_be_kept_undoes_nothing(searched, monkeypatch, error):
    def gone(*_args, **_options):
        raise error

    monkeypatch.setattr("breakhis_search.reporting.attach.gather_facts", gone)
    told: list[str] = []
    attach_paper_trail(searched.client, NAME, "1", told.append)
    assert "could not be kept" in told[0]
    assert "`card` writes it later" in told[0]
