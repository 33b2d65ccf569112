"""How a study proposes: as Optuna does, with fewer readings of its database."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from breakhis_search.study.strategy import OneReadingTPESampler

LIKE_OURS = {
    "n_startup_trials": 5,
    "seed": 3,
    "multivariate": True,
    "group": True,
    "constant_liar": True,
}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def _draw(trial: optuna.Trial) -> float:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    width = trial.suggest_int("width", 1, 9) if kind == "a" else 0
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    return rate + width


def _study(sampler: TPESampler, pruner: Any, storage: str | None = None) -> optuna.Study:
    return optuna.create_study(storage=storage, sampler=sampler, pruner=pruner)


@pytest.mark.parametrize(
    "pruner", [optuna.pruners.NopPruner(), optuna.pruners.HyperbandPruner(1, 9)]
)
def test_proposals_are_those_of_optuna(pruner):
    drawn = []
    for kind in (TPESampler, OneReadingTPESampler):
        study = _study(kind(**LIKE_OURS), pruner)
        at_work: list[tuple[optuna.Trial, float]] = []
        for _ in range(40):
            trial = study.ask()
            at_work.append((trial, _draw(trial)))
            if len(at_work) == 3:  # two others are at work whenever one is begun
                study.tell(*at_work.pop(0))
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    assert len({str(params) for params in drawn[0]}) == 40


def test_a_proposal_reads_the_study_once(tmp_path, monkeypatch):
    study = _study(
        OneReadingTPESampler(**LIKE_OURS), None, storage=f"sqlite:///{tmp_path / 'studies.db'}"
    )
    study.optimize(_draw, n_trials=8)
    readings = []
    read = type(study._storage)._read_trials_from_remote_storage
    monkeypatch.setattr(
        type(study._storage),
        "_read_trials_from_remote_storage",
        lambda storage, study_id: (readings.append(study_id), read(storage, study_id))[1],
    )
    trial = study.ask()
    _draw(trial)
    assert len(readings) == 2, "for what was enqueued, and to propose"
    assert study.trials[-1].system_attrs, "it proposed, and told others so"
    assert study.trials[-1].state == TrialState.RUNNING
