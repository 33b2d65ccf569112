"""What `predict` and `status` say of a version, and of versions that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from breakhis_search.comparison.answers import record_answer
from breakhis_search.comparison.gate import GateRules
from breakhis_search.comparison.history import change_champion
from breakhis_search.comparison.leaderboard import find_studies
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.data.demo import make_demo
from breakhis_search.errors import DataError, RegistryError, TrackingError
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import open_store
from breakhis_search.workflow.overview import read_overview
from breakhis_search.workflow.prediction import find_registered, predict_images

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
NAME = "breakhis-binary"
RULES = GateRules("auroc", 0.05, 0.05, {"image/auroc": 0.7}, {})


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    (home / "experiments").symlink_to(EXPERIMENTS)
    return read_settings({"BREAKHIS_CACHE": str(home / "cache")}, home=home)


@pytest.fixture(scope="module")
def client(settings) -> Any:
    """A registry with two versions that are no champion, the second of them challenger."""
    client = open_store(settings)
    experiment = client.create_experiment(NAME)
    client.create_registered_model(NAME)
    for score in (0.58, 0.81):
        run = client.create_run(experiment)
        client.log_metric(run.info.run_id, "image/auroc", score)
        tags = {
            keys.STUDY: "binary@v1",
            keys.OBJECTIVE: "auroc",
            keys.MAGNIFICATION: "100",
            keys.DEMO: "false",
            keys.GATE_RULES: RULES.to_json(),
            keys.EVIDENCE_RUN: run.info.run_id,
            "score_out_of_fold": f"{score:.4f}",
        }
        client.create_model_version(
            NAME, source=run.info.artifact_uri, run_id=run.info.run_id, tags=tags
        )
    client.set_registered_model_alias(NAME, "challenger", "2")
    return client


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    return min(make_demo(tmp_path_factory.mktemp("d") / "demo", images_per_slide=1).rglob("*.png"))


def facts_of(client: Any, version: str) -> VersionFacts:
    aliases = client.get_registered_model(NAME).aliases
    return read_facts(client, client.get_model_version(NAME, version), aliases)


def test_the_facts_of_a_version_that_holds_its_floors(client):
    assert facts_of(client, "2").in_words() == (
        "breakhis-binary version 2 (challenger): trained at 100X in binary@v1; out-of-fold AUROC"
        " 0.8100 of images; not a medical device"
    )


def test_without_a_champion_the_challenger_is_offered(client, settings, image):
    with pytest.raises(RegistryError, match="no champion.*version 2, which is a challenger"):
        predict_images("binary", [image], settings)
    with pytest.raises(RegistryError, match=r"add --version 2, or ask `promote`"):
        predict_images("binary", [image], settings)


def test_a_version_that_is_not_there_names_those_that_are(client, settings, image):
    with pytest.raises(RegistryError) as told:
        predict_images("binary", [image], settings, version="7")
    assert "has no version 7; expected one of its versions: 1, 2 (challenger);" in str(told.value)
    assert told.value.remedy == "name one of them with --version"


def test_without_any_version_the_study_is_to_be_run(client, settings, image):
    with pytest.raises(RegistryError, match="to do: run --study multiclass"):
        predict_images("multiclass", [image], settings)


def test_without_any_version_of_the_demo_it_is_told_how_the_demo_is_searched(
    client, settings, image
):
    with pytest.raises(RegistryError, match="has no champion.*run --study binary where there are"):
        predict_images("binary", [image], settings, demo=True)


def test_a_version_below_its_floors_that_was_forced_says_both(client):
    change_champion(client, NAME, "1", instead_of=None, action="forced", why="for a test")
    facts = facts_of(client, "1")
    assert facts.forced
    assert facts.below_floors == ("image/auroc 0.580 < 0.700",)
    assert "BELOW ITS FLOORS (image/auroc 0.580 < 0.700); FORCED past the gate" in facts.in_words()


def test_beside_a_champion_a_version_that_is_not_there_is_not_to_be_promoted(client, settings):
    with pytest.raises(RegistryError) as told:
        find_registered(client, NAME, "binary", version="7")
    assert told.value.expected == "one of its versions: 1 (champion), 2 (challenger)"
    assert told.value.remedy == "name one of them with --version, or leave it out for the champion"


def test_a_champion_that_fails_the_sealed_test_says_so_until_it_is_confirmed(client):
    version = client.get_model_version(NAME, "2")
    for action, fails in (("not confirmed", True), ("refused", True), ("confirmed", False)):
        record_answer(client, version, against=None, action=action, reasons=["for a test"])
        facts = facts_of(client, "2")
        assert facts.fails_sealed is fails, action
        assert ("DOES NOT HOLD THE SEALED TEST" in facts.in_words()) is fails


def test_a_version_that_the_gate_refused_is_not_offered_to_it_again(client):
    version = client.get_model_version(NAME, "2")
    record_answer(client, version, against=None, action="refused", reasons=["for a test"])
    client.delete_registered_model_alias(NAME, "champion")
    with pytest.raises(RegistryError, match=r"no champion.*add --version 2 to use it as it is"):
        find_registered(client, NAME, "binary")
    client.set_registered_model_alias(NAME, "champion", "1")


def test_status_knows_the_same_with_numbers_as_numbers(client, settings):
    models = {m.version: m for m in read_overview(settings).models}
    assert models["1"] == facts_of(client, "1")
    assert models["2"].score == pytest.approx(0.81)


def test_files_are_checked_before_the_registry_is_opened(tmp_path):
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    (tmp_path / "mlruns").write_text("a file where a folder should be")
    text = tmp_path / "README.md"
    text.write_text("# no image")
    with pytest.raises(DataError, match=r"1 of 1 image could not be scored: .*README.md \(not an"):
        predict_images("binary", [text], read_settings({}, home=tmp_path))


def test_a_comparison_of_a_study_that_ran_on_the_demo_only_names_that(tmp_path):
    client = open_store(read_settings({}, home=tmp_path))
    experiment = client.create_experiment("breakhis-binary-demo")
    tags = {keys.ROLE: keys.ROLE_STUDY, keys.STUDY: "binary-demo@v1", keys.DEMO: "true"}
    client.create_run(experiment, tags=tags)
    with pytest.raises(TrackingError, match="--study binary-demo is its run on the demo"):
        find_studies(client, ["binary"])
