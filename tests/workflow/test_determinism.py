"""The same seed, data and worker give identical hyperparameters and scores."""

from __future__ import annotations

import json

import optuna

DETERMINISTIC = (
    "--set=training.deterministic=true",
    "--set=training.max_epochs=3",
    "--set=finalists={count: 1, seeds: 1}",
)


def outcome(home) -> list[tuple[dict, float, dict]]:
    study = optuna.load_study(study_name="binary-demo@v1", storage=home.settings.studies_uri)
    return [(t.params, t.value, t.intermediate_values) for t in study.trials]


def test_two_runs_with_the_same_seed_are_equal_and_so_is_a_replay(tmp_path, make_home, capsys):
    results = []
    for name in ("first", "second"):
        home = make_home(tmp_path / name)
        assert home.search("binary", 2, "--device", "cpu", *DETERMINISTIC) == 0
        results.append(outcome(home))
    assert len(results[0]) == 2
    assert results[0] == results[1]
    capsys.readouterr()
    assert home.run("replay", "--study", "binary", "--trial", "1", "--demo", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["is_equal"], "bit by bit"
    assert len(answer["metrics"]) > 50
    assert all(then == now for then, now in answer["metrics"].values())
