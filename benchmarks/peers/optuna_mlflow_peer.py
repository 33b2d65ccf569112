"""A reference search with Optuna, tracked by ``mlflow.keras.autolog`` or not at all.

    python benchmarks/peers/optuna_mlflow_peer.py r1 --data DIR --weights DIR [--untracked]

Prints a line of JSON after every trial: seconds of each so far, its score.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import mlflow
import optuna
from searches import SEARCHES, Pipelines, train, use_backbone


class AsHyperParameters:
    """An Optuna trial with the methods of ``keras_tuner.HyperParameters`` used here."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def Choice(self, name, values):  # noqa: N802 - keras-tuner's signature
        return self._trial.suggest_categorical(name, values)

    def Float(self, name, low, high, sampling="linear"):  # noqa: N802 - keras-tuner's signature
        return self._trial.suggest_float(name, low, high, log=sampling == "log")


def main() -> None:
    """Run the search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search", choices=SEARCHES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path())
    parser.add_argument("--trials", type=int)
    parser.add_argument("--backbone", help="try this one alone")
    parser.add_argument("--untracked", action="store_true")
    options = parser.parse_args()
    use_backbone(options.search, options.backbone)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = "optuna" if options.untracked else "optuna_mlflow"
    pipelines, seconds, scores = Pipelines(options.search, options.data), [], []
    with tempfile.TemporaryDirectory() as folder:
        if not options.untracked:
            mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
            mlflow.create_experiment("peer", artifact_location=f"{folder}/artifacts")
            mlflow.set_experiment("peer")
            mlflow.keras.autolog(log_datasets=False)

        def objective(trial: optuna.Trial) -> float:
            began = time.perf_counter()
            with nullcontext() if options.untracked else mlflow.start_run():
                value = train(AsHyperParameters(trial), options.search, pipelines, options.weights)
                if not options.untracked:
                    mlflow.log_params(trial.params)
                    mlflow.log_metric("score", value)
            seconds.append(time.perf_counter() - began)
            scores.append(value)
            found = {"peer": name, "seconds": seconds, "scores": scores}
            print(json.dumps(found), flush=True)
            return value

        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)
        )
        study.optimize(objective, n_trials=options.trials or SEARCHES[options.search].trials)


if __name__ == "__main__":
    main()
