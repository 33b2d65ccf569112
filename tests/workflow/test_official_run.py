"""The official protocol as a whole search: finalists are scored on the published tests."""

from __future__ import annotations

import pandas as pd
import pytest

from breakhis_search.evaluation.official_rates import official_rates
from breakhis_search.tracking import keys


@pytest.fixture(scope="module")
def official(tmp_path_factory, make_home):
    """A home after an official search on the demo, with five folds that test whole slides."""
    home = make_home(tmp_path_factory.mktemp("official"))
    slides = sorted({file.name.rsplit("-", 2)[0] for file in home.demo.rglob("*.png")})
    lines = ["fold,mag,grp,filename"]
    for fold in range(1, 6):
        test = set(slides[fold::5])
        for file in sorted(home.demo.rglob("*.png")):
            side = "test" if file.name.rsplit("-", 2)[0] in test else "train"
            lines.append(f"{fold},{file.name.split('-')[-2]},{side},breast/{file.name}")
    (home.folder / "Folds.csv").write_text("\n".join(lines) + "\n")
    places = ["protocol.kind=official", f"protocol.folds_file={home.folder / 'Folds.csv'}"]
    assert home.search("binary", 1, *[f"--set={place}" for place in places]) == 0
    return home


def test_finalist_logs_recognition_rates_of_the_official_tests(official, tmp_path):
    [experiment] = official.client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    [finalist] = official.client.search_runs(
        [experiment.experiment_id], f"tags.`{keys.ROLE}` = '{keys.ROLE_FINALIST}'"
    )
    folder = official.client.download_artifacts(finalist.info.run_id, "official", str(tmp_path))
    answers = pd.read_parquet(f"{folder}/predictions.parquet")
    assert set(answers["fold"]) == {0, 1, 2, 3, 4}
    rates = official_rates(answers)
    for row in rates.to_dict("records"):
        name = f"official/{row['magnification']}x/{row['rate']}_rate_mean"
        assert finalist.data.metrics[name] == pytest.approx(row["mean"])
    assert len(rates) == 8


def test_official_study_registers_nothing(official):
    assert official.client.search_registered_models() == []
