"""What CONTRIBUTING.md says to do in five minutes, done from outside the package: one search."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from breakhis_search.config import StudyConfig
from breakhis_search.study.identity import study_digest
from breakhis_search.study_file import load_study
from breakhis_search.tracking import keys
from breakhis_search.workflow.own_code import code_digests

CONTRIBUTING = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text()
METRIC = "sensitivity_at_90_specificity"


def write_files(folder: Path) -> None:
    """Write every block that begins with the name of its file."""
    blocks = re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for name, text in blocks:
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def mine(tmp_path_factory, make_home, tiny_demo):
    """A folder outside the package after the search of the page, by a worker process."""
    home = make_home(tmp_path_factory.mktemp("mine"))
    write_files(home.folder)
    study = ("--quiet", "run", "--study", "mine.yaml", "--data", str(tiny_demo), "--workers=1")
    told = io.StringIO()
    with redirect_stdout(told):
        assert home.run(*study) == 0
    (home.folder / "told.txt").write_text(told.getvalue())
    return home


@pytest.fixture(scope="module")
def runs(mine) -> dict[str, list]:
    """Runs of the study in MLflow by role."""
    client = mine.client
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    roles = {run.data.tags[keys.ROLE] for run in found}
    return {role: [r for r in found if r.data.tags[keys.ROLE] == role] for role in roles}


def test_an_architecture_of_ones_own_is_searched_and_registered(mine, runs):
    assert len(runs["trial"]) == 2
    for run in runs["trial"]:
        assert run.data.tags[keys.ARCHITECTURE] == "my_architectures:TwoBlocks"
        assert run.data.params["TwoBlocks/filters"] == "8"
    [version] = mine.client.search_model_versions("name = 'breakhis-binary-demo'")
    assert str(version.version) == "1"


def test_a_sampling_strategy_of_ones_own_is_trained_with_and_named(runs):
    for run in (*runs["trial"], *runs["finalist"]):
        assert run.data.tags[keys.SAMPLING] == "my_sampling:fewer_of_many"
        assert run.data.params["sampling/strategy"] == "my_sampling:fewer_of_many"


def test_a_metric_of_ones_own_is_in_mlflow_at_both_levels(runs):
    for run in (*runs["trial"], *runs["finalist"]):
        for level in ("image", "patient"):
            assert 0 <= run.data.metrics[f"own/{level}/{METRIC}"] <= 1


def test_a_metric_of_ones_own_stands_on_the_pages(mine, runs):
    for run in (*runs["trial"], *runs["finalist"]):
        page = Path(mine.client.download_artifacts(run.info.run_id, keys.ARTIFACT_PAGE)).read_text()
        value = run.data.metrics[f"own/image/{METRIC}"]
        assert "Metrics of your own" in page
        assert re.search(rf"my_metrics:{METRIC}</code></th><td>{value:.3f}</td>", page)


def test_compare_shows_it_of_finalists_and_trials(mine, capsys):
    assert mine.run("compare", "--study", "mine-demo") == 0
    out = capsys.readouterr().out
    assert "mine-demo@v1: metrics of your own" in out
    assert f"patient/{METRIC}" in out
    assert mine.run("compare", "--study", "mine-demo", "--json") == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    for row in (*study["finalists"], *study["trials"]):
        assert 0 <= row[f"own/image/{METRIC}"] <= 1


def test_a_quiet_search_tells_its_result_alone(mine):
    selected, registered, banner = (mine.folder / "told.txt").read_text().splitlines()
    assert "(my_architectures:TwoBlocks," in selected
    assert registered.startswith("Registered: breakhis-binary-demo version 1 as champion")
    assert banner.startswith("SYNTHETIC DEMO")


def digests(folder: Path) -> dict[str, str]:
    config: StudyConfig = load_study(folder / "mine.yaml")
    return code_digests(config, folder)


def test_the_code_is_a_part_of_the_studys_identity(tmp_path):
    write_files(tmp_path)
    before = digests(tmp_path)
    assert set(before) == {"my_architectures:TwoBlocks", "my_sampling:fewer_of_many"}
    with (tmp_path / "my_sampling.py").open("a") as file:
        file.write("\n")
    after = digests(tmp_path)
    assert after["my_sampling:fewer_of_many"] != before["my_sampling:fewer_of_many"]
    assert after["my_architectures:TwoBlocks"] == before["my_architectures:TwoBlocks"]
    config = load_study(tmp_path / "mine.yaml")
    facts = {"data_fingerprint": "d", "split_digest": "s", "weights": {}}
    identities = {study_digest(config, own_code=code, **facts) for code in (before, after, {})}
    assert len(identities) == 3
    assert study_digest(config, own_code={}, **facts) == study_digest(config, **facts)
