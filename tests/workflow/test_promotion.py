"""``promote``, ``rollback`` and ``compare --history`` on a registry that one real search filled."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking._tracking_service import utils as mlflow_utils

from breakhis_search.comparison.answers import answers_of
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.history import (
    champion_of,
    previous_champion,
    read_history,
)
from breakhis_search.comparison.openings import (
    begin_opening,
    openings_of,
    versions_it_answered_for,
)
from breakhis_search.evaluation.predictions import LOGIT_PREFIX, write_parquet
from breakhis_search.tracking import keys
from tests.homes import copy_home

NAME = "breakhis-binary-demo"


@pytest.fixture
def registry(searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The searched home with its own registry, in which a twin of the champion is challenger."""
    home = copy_home(searched, tmp_path)
    # What MLflow remembers of where artifacts lie holds for this copy: it is forgotten at the end.
    monkeypatch.setattr(mlflow_utils, "_artifact_repos_cache", OrderedDict())
    add_version(home.client)
    return home


def add_version(client: Any, **tags: str) -> str:
    """Register the champion's model again under the next number, as the challenger."""
    champion = client.get_model_version(NAME, "1")
    twin = client.create_model_version(
        NAME, source=champion.source, run_id=champion.run_id, tags={**champion.tags, **tags}
    )
    client.set_registered_model_alias(NAME, "challenger", twin.version)
    return str(twin.version)


def evidence_of(client: Any, change: Callable[[Any], Any], folder: Path) -> str:
    """Return a new run with the champion's out-of-fold predictions, changed."""
    version = client.get_model_version(NAME, "1")
    table = change(read_predictions(client, version.tags[keys.EVIDENCE_RUN]).copy())
    experiment = client.get_run(version.tags[keys.EVIDENCE_RUN]).info.experiment_id
    run = client.create_run(experiment)
    file = folder / "predictions.parquet"
    write_parquet(table, file)
    client.log_artifact(run.info.run_id, str(file), "predictions")
    return str(run.info.run_id)


def improved(table: Any) -> Any:
    """Every image a good deal more right."""
    columns = [c for c in table.columns if c.startswith(LOGIT_PREFIX)]
    right = np.eye(len(columns))[table["y_true"]]
    table[columns] = (table[columns].to_numpy() + 8 * right).astype(np.float32)
    return table


def promote(home, *more: str) -> int:
    # Without --data: the version says where its images were.
    return home.run("promote", "--study", "binary", "--demo", *more)


def card_of(home, version: str, capsys) -> str:
    assert home.run("card", "--study", "binary", "--demo", "--version", version) == 0
    return str(capsys.readouterr().out)


def champion(home) -> str:
    return str(champion_of(home.client, NAME).version)


def test_equal_challenger_is_refused_twice_and_nothing_moves(registry, capsys) -> None:
    for _ in range(2):
        assert promote(registry) == 1
        told = capsys.readouterr()
        assert "version 2 of breakhis-binary-demo is refused: " in told.err
        assert "not shown to be better than the champion" in told.err
        assert "p = 1" in told.out
    assert champion(registry) == "1"
    assert len(read_history(registry.client, NAME)) == 1
    refused = registry.client.get_model_version(NAME, "2")
    assert openings_of(registry.client, refused) == []
    assert [(a.action, a.against) for a in answers_of(registry.client, refused)] == [
        ("refused", "1"),
        ("refused", "1"),
    ]
    assert answers_of(registry.client, registry.client.get_model_version(NAME, "1")) == []


def test_dry_run_tells_without_opening_the_sealed_test(registry, tmp_path, capsys) -> None:
    better = add_version(
        registry.client,
        **{keys.EVIDENCE_RUN: evidence_of(registry.client, improved, tmp_path)},
    )
    assert promote(registry, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "better than the champion" in told
    assert "would be opened now" in told
    dry = registry.client.get_model_version(NAME, better)
    assert openings_of(registry.client, dry) == []
    assert answers_of(registry.client, dry) == []
    assert champion(registry) == "1"


def test_better_challenger_opens_the_sealed_test_and_is_promoted(
    registry, tmp_path, capsys
) -> None:
    client = registry.client
    evidence = evidence_of(client, improved, tmp_path)
    better = add_version(client, **{keys.EVIDENCE_RUN: evidence})
    assert promote(registry) == 0
    told = capsys.readouterr().out
    assert "on the sealed test not worse than the champion" in told
    assert champion(registry) == better
    change = read_history(client, NAME)[-1]
    assert (change.version, change.previous, change.action) == (better, "1", "promoted")
    replaced = card_of(registry, "1", capsys)
    assert f"replaced by version {better}" in replaced
    assert "Opened once" in replaced
    assert "sealed_test/image/auroc" in change.scores
    for version, rival in ((better, "1"), ("1", better)):
        [opening] = openings_of(client, client.get_model_version(NAME, version))
        assert opening.against == rival
        assert opening.is_complete
        sealed = client.get_model_version(NAME, "1").tags[keys.SEALED_DIGEST]
        assert opening.sealed_digest == sealed
    run = client.get_run(client.get_model_version(NAME, better).run_id)
    assert 0 <= run.data.metrics["sealed_test/image/auroc"] <= 1

    assert registry.run("rollback", "--study", "binary", "--demo") == 0
    assert champion(registry) == "1"
    assert promote(registry, "--version", better) == 0
    assert "what it said then counts" in capsys.readouterr().out
    assert len(openings_of(client, client.get_model_version(NAME, better))) == 1

    assert registry.run("rollback", "--study", "binary", "--demo") == 0
    assert promote(registry, "--version", better, "--again") == 0
    assert "OPENED BEFORE: 1 ×" in capsys.readouterr().out
    openings = openings_of(client, client.get_model_version(NAME, better))
    assert [opening.opened_before for opening in openings] == [0, 1]

    assert registry.run("compare", "--study", "binary-demo", "--history", "--json") == 0
    moves = json.loads(capsys.readouterr().out)[NAME]["moves"]
    ends = ["rolled back", "promoted"]
    assert [c["action"] for c in moves] == ["registered", "promoted", *ends, *ends]


def test_sealed_floor_vetoes_a_better_challenger(registry, tmp_path, capsys) -> None:
    client = registry.client
    rules = json.loads(client.get_model_version(NAME, "1").tags[keys.GATE_RULES])
    rules["sealed_floors"] = {"image/auroc": 1.01}
    better = add_version(
        client,
        **{
            keys.EVIDENCE_RUN: evidence_of(client, improved, tmp_path),
            keys.GATE_RULES: json.dumps(rules),
        },
    )
    assert promote(registry) == 1
    assert "on the sealed test, below the configured floors" in capsys.readouterr().err
    assert champion(registry) == "1"
    assert len(openings_of(client, client.get_model_version(NAME, better))) == 1


def test_champion_of_another_sealed_test_is_refused_with_the_remedy(registry, capsys) -> None:
    add_version(registry.client, **{keys.SEALED_DIGEST: "0" * 64})
    assert promote(registry) == 1
    assert "different sealed tests" in capsys.readouterr().out
    assert champion(registry) == "1"


def test_new_sealed_test_is_begun_with_by_force_and_compared_on_from_there(
    registry, capsys
) -> None:
    other = {keys.SEALED_DIGEST: "0" * 64}
    begun = add_version(registry.client, **other)
    assert promote(registry, "--force") == 0
    assert champion(registry) == begun
    change = read_history(registry.client, NAME)[-1]
    assert change.action == "forced"
    assert "different sealed tests" in change.why
    add_version(registry.client, **other)
    assert promote(registry) == 1
    assert "not shown to be better than the champion" in capsys.readouterr().err


def test_champion_of_other_images_is_refused_and_not_a_dead_end(registry, tmp_path, capsys) -> None:
    fewer = evidence_of(registry.client, lambda table: table.iloc[:-1], tmp_path)
    begun = add_version(registry.client, **{keys.EVIDENCE_RUN: fewer})
    assert promote(registry) == 1
    assert "cannot be compared" in capsys.readouterr().err
    assert promote(registry, "--force") == 0
    assert champion(registry) == begun


def test_broken_champion_costs_no_opening_of_the_sealed_test(registry, tmp_path, capsys) -> None:
    client = registry.client
    client.set_model_version_tag(NAME, "1", keys.MODEL_SHA256, "0" * 64)
    better = add_version(client, **{keys.EVIDENCE_RUN: evidence_of(client, improved, tmp_path)})
    intact = client.get_model_version(NAME, "2").tags[keys.MODEL_SHA256]
    client.set_model_version_tag(NAME, better, keys.MODEL_SHA256, intact)
    assert promote(registry) == 1
    assert "version 1 of breakhis-binary-demo is not what was registered" in capsys.readouterr().err
    assert openings_of(client, client.get_model_version(NAME, better)) == []


def test_version_without_a_sealed_test_is_judged_out_of_fold_only(
    registry, tmp_path, capsys
) -> None:
    client = registry.client
    for version in ("1", "2"):
        client.delete_model_version_tag(NAME, version, keys.SEALED_DIGEST)
    better = add_version(client, **{keys.EVIDENCE_RUN: evidence_of(client, improved, tmp_path)})
    assert promote(registry) == 0
    assert "there is no sealed test" in capsys.readouterr().out
    assert champion(registry) == better


def test_data_with_another_sealed_test_is_refused(registry, tmp_path, capsys) -> None:
    client = registry.client
    other = {keys.SEALED_DIGEST: "0" * 64}
    client.set_model_version_tag(NAME, "1", keys.SEALED_DIGEST, "0" * 64)
    evidence = evidence_of(client, improved, tmp_path)
    add_version(client, **{keys.EVIDENCE_RUN: evidence, **other})
    assert promote(registry) == 1
    assert "holds another sealed test" in capsys.readouterr().err


def test_artifact_that_was_changed_is_refused(registry, tmp_path, capsys) -> None:
    client = registry.client
    evidence = evidence_of(client, improved, tmp_path)
    add_version(client, **{keys.EVIDENCE_RUN: evidence, keys.MODEL_SHA256: "0" * 64})
    assert promote(registry) == 1
    assert "is not what was registered" in capsys.readouterr().err
    assert champion(registry) == "1"


@pytest.mark.parametrize("changed", ["*.py", "MLmodel"], ids=["its code", "its thresholds"])
def test_a_model_whose_files_were_changed_is_not_even_loaded(registry, capsys, changed) -> None:
    """Its code would run on loading."""
    folder = registry.folder / "mlruns" / "artifacts"
    code = min(f for f in folder.rglob(changed) if "classifier" in f.read_text())
    code.write_text(code.read_text() + "\n# planted\n")
    image = min(registry.demo.rglob("*.png"))
    assert registry.run("predict", "--study", "binary", "--demo", str(image)) == 1
    message = capsys.readouterr().err
    assert "version 1 of breakhis-binary-demo is not what was registered" in message
    assert "do not use it" in message


def test_forced_promotion_is_written_down_as_forced(registry) -> None:
    assert promote(registry, "--force") == 0
    change = read_history(registry.client, NAME)[-1]
    assert (change.version, change.action) == ("2", "forced")
    assert "not shown to be better" in change.why


def test_champion_itself_is_confirmed_on_the_sealed_test(registry, capsys) -> None:
    assert promote(registry, "--version", "1") == 0
    assert "is champion and stays so" in capsys.readouterr().out
    version = registry.client.get_model_version(NAME, "1")
    assert [a.action for a in answers_of(registry.client, version)] == ["confirmed"]
    assert "opened 1 time" in version.description
    assert len(openings_of(registry.client, registry.client.get_model_version(NAME, "1"))) == 1


def test_rolling_back_while_another_one_promotes_is_refused(
    registry, tmp_path, monkeypatch, capsys
):
    client = registry.client
    better = add_version(client, **{keys.EVIDENCE_RUN: evidence_of(client, improved, tmp_path)})
    assert promote(registry) == 0
    assert champion(registry) == better
    read = previous_champion

    def read_late(*arguments: Any) -> str:
        version = read(*arguments)
        client.set_registered_model_alias(NAME, "champion", "2")  # another process, just now
        return version

    monkeypatch.setattr("breakhis_search.workflow.promotion.previous_champion", read_late)
    assert registry.run("rollback", "--study", "binary", "--demo") == 1
    assert champion(registry) == "2", "the move of the other one stands"
    assert capsys.readouterr().err.startswith("error: ")


def without_champion(home, **rules: Any) -> None:
    """Take the registry back to the moment after a first search, with these rules."""
    client = home.client
    client.delete_registered_model_alias(NAME, "champion")
    for key in client.get_registered_model(NAME).tags:
        client.delete_registered_model_tag(NAME, key)
    known = json.loads(client.get_model_version(NAME, "2").tags[keys.GATE_RULES])
    client.set_model_version_tag(NAME, "2", keys.GATE_RULES, json.dumps({**known, **rules}))


def test_first_champion_is_crowned_by_the_sealed_test(registry, capsys) -> None:
    without_champion(registry, sealed_floors={"image/auroc": 0.0})
    assert promote(registry, "--dry-run") == 0
    assert "is not refused by what is known" in capsys.readouterr().out
    assert promote(registry) == 0
    assert "there was none before" in capsys.readouterr().out
    assert champion(registry) == "2"
    version = registry.client.get_model_version(NAME, "2")
    [opening] = openings_of(registry.client, version)
    assert opening.is_complete
    assert opening.against is None


def test_sealed_test_vetoes_a_first_champion(registry, capsys) -> None:
    without_champion(registry, sealed_floors={"image/auroc": 1.01})
    assert promote(registry) == 1
    assert "on the sealed test, below the configured floors" in capsys.readouterr().err
    assert champion_of(registry.client, NAME) is None
    image = str(min(registry.demo.rglob("*.png")))
    assert registry.run("predict", "--study", "binary", "--demo", image) == 1
    assert "breakhis-binary-demo has no champion" in capsys.readouterr().err


def test_stricter_rules_of_the_champion_hold_for_who_replaces_it(
    registry, tmp_path, capsys
) -> None:
    client = registry.client
    evidence = evidence_of(client, improved, tmp_path)
    rules = json.loads(client.get_model_version(NAME, "1").tags[keys.GATE_RULES])
    mine = {**rules, "alpha": 1.0, "floors": {}}
    its = {**rules, "floors": {"image/auroc": 1.01}}
    client.set_model_version_tag(NAME, "1", keys.GATE_RULES, json.dumps(its))
    add_version(client, **{keys.EVIDENCE_RUN: evidence, keys.GATE_RULES: json.dumps(mine)})
    assert promote(registry) == 1
    told = capsys.readouterr().out
    assert "out-of-fold, below the configured floors: image/auroc" in told
    [answer] = answers_of(client, client.get_model_version(NAME, "3"))
    assert "by those of version 1: p ≤ 0.05, out-of-fold image/auroc ≥ 1.01" in answer.why
    assert champion(registry) == "1"


def test_version_of_another_objective_is_not_compared(registry, capsys) -> None:
    rules = json.loads(registry.client.get_model_version(NAME, "1").tags[keys.GATE_RULES])
    other = {**rules, "objective": "balanced_accuracy"}
    add_version(registry.client, **{keys.GATE_RULES: json.dumps(other)})
    assert promote(registry) == 1
    assert "selected by auroc, version 3 by balanced_accuracy" in capsys.readouterr().out
    assert champion(registry) == "1"


def test_opening_that_was_cut_off_counts_and_answers_nothing(registry, tmp_path, capsys) -> None:
    client = registry.client
    better = add_version(client, **{keys.EVIDENCE_RUN: evidence_of(client, improved, tmp_path)})
    version = client.get_model_version(NAME, better)
    begin_opening(client, version, version.tags[keys.SEALED_DIGEST], "1")
    client.log_metric(version.run_id, "sealed_test/image/auroc", 1.0)  # as far as it came
    assert promote(registry) == 0
    told = capsys.readouterr().out
    assert "OPENED BEFORE: 1 ×" in told
    assert "what it said then counts" not in told
    assert [o.is_complete for o in openings_of(client, version)] == [False, True]


def test_two_openings_of_one_stale_version_are_two_records(registry) -> None:
    stale = registry.client.get_model_version(NAME, "2")
    for _ in range(2):
        begin_opening(registry.client, stale, "a" * 64, None)
    openings = openings_of(registry.client, stale)
    assert [opening.opened_before for opening in openings] == [0, 1]
    assert len({opening.key for opening in openings}) == 2


def test_sealed_predictions_that_were_changed_answer_nothing(registry, tmp_path, capsys) -> None:
    client = registry.client
    assert promote(registry, "--version", "1") == 0
    version = client.get_model_version(NAME, "1")
    [opening] = openings_of(client, version)
    file = Path(client.download_artifacts(version.run_id, opening.artifact, str(tmp_path)))
    table = improved(read_predictions(client, version.run_id, opening.artifact))
    write_parquet(table, file)
    client.log_artifact(version.run_id, str(file), str(Path(opening.artifact).parent))
    assert promote(registry, "--version", "1") == 1
    assert "are not what was kept" in capsys.readouterr().err


def test_rules_of_a_champion_are_handed_down(registry, tmp_path, capsys) -> None:
    """A strict champion is replaced by a version of a loose study, and that by another one."""
    client = registry.client
    rules = json.loads(client.get_model_version(NAME, "1").tags[keys.GATE_RULES])
    loose = json.dumps({**rules, "alpha": 1.0, "floors": {}})
    evidence = evidence_of(client, improved, tmp_path)
    second = add_version(client, **{keys.EVIDENCE_RUN: evidence, keys.GATE_RULES: loose})
    assert promote(registry) == 0
    add_version(client, **{keys.EVIDENCE_RUN: evidence, keys.GATE_RULES: loose})
    assert promote(registry) == 1
    assert f"by those of version {second}: p ≤ 0.05" in capsys.readouterr().out
    assert champion(registry) == second


def test_champion_that_says_nothing_of_itself_is_replaced_by_force_only(registry, capsys) -> None:
    registry.client.delete_model_version_tag(NAME, "1", keys.GATE_RULES)
    assert promote(registry) == 1
    assert "says nothing of how it was made" in capsys.readouterr().out
    assert promote(registry, "--force") == 0
    assert champion(registry) == "2"


def test_changed_artifact_is_not_crowned_for_what_it_answered_before(
    registry, tmp_path, capsys
) -> None:
    client = registry.client
    better = add_version(client, **{keys.EVIDENCE_RUN: evidence_of(client, improved, tmp_path)})
    assert promote(registry) == 0
    assert registry.run("rollback", "--study", "binary", "--demo") == 0
    code = min((registry.folder / "mlruns" / "artifacts").rglob("MLmodel"), key=is_no_classifier)
    code.write_text(code.read_text() + "\n# planted\n")
    assert promote(registry, "--version", better) == 1
    assert "is not what was registered" in capsys.readouterr().err
    assert champion(registry) == "1"


def is_no_classifier(file: Path) -> bool:
    return "classifier" not in file.read_text()


def test_opening_of_an_earlier_release_counts_and_answers_nothing(registry) -> None:
    client, old = registry.client, {"when": "2026-01-01T00:00:00+00:00", "opened_before": 0}
    record = {**old, "sealed_digest": "s", "model_sha256": "m", "against": None}
    client.set_model_version_tag(NAME, "2", f"{keys.SEALED_OPENING}001", json.dumps(record))
    [opening] = openings_of(client, client.get_model_version(NAME, "2"))
    assert (opening.when, opening.is_complete) == (old["when"], False)
    assert versions_it_answered_for(client, NAME, "s") == {"2"}
