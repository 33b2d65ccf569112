"""The same seed, data and worker give identical hyperparameters and scores."""

from __future__ import annotations

import optuna

DETERMINISTIC = (
    "--set=training.deterministic=true",
    "--set=training.max_epochs=3",
    "--set=finalists={count: 1, seeds: 1}",
)


def outcome(home) -> list[tuple[dict, float, dict]]:
    study = optuna.load_study(study_name="binary-demo@v1", storage=home.settings.studies_uri)
    return [(t.params, t.value, t.intermediate_values) for t in study.trials]


def test_two_runs_with_the_same_seed_are_equal(tmp_path, make_home):
    results = []
    for name in ("first", "second"):
        home = make_home(tmp_path / name)
        assert home.search("binary", 2, "--device", "cpu", *DETERMINISTIC) == 0
        results.append(outcome(home))
    assert len(results[0]) == 2
    assert results[0] == results[1]
