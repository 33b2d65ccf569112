"""A reference search with Keras Tuner's Bayesian tuner.

    python benchmarks/peers/keras_tuner_peer.py r1 --data DIR --weights DIR [--trials N]

Prints a line of JSON after every trial: seconds of each so far, its score, seconds in all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import keras_tuner
from searches import SEARCHES, Pipelines, train, use_backbone


def main() -> None:
    """Run the search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search", choices=SEARCHES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=Path())
    parser.add_argument("--trials", type=int)
    parser.add_argument("--backbone", help="try this one alone")
    options = parser.parse_args()
    use_backbone(options.search, options.backbone)
    start = time.perf_counter()
    pipelines, seconds, scores = Pipelines(options.search, options.data), [], []

    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial, *_, **__):
            began = time.perf_counter()
            scores.append(train(trial.hyperparameters, options.search, pipelines, options.weights))
            seconds.append(time.perf_counter() - began)
            total = time.perf_counter() - start
            found = {"peer": "keras_tuner", "seconds": seconds, "scores": scores, "total": total}
            print(json.dumps(found), flush=True)
            return {"val_score": scores[-1]}

    with tempfile.TemporaryDirectory() as folder:
        tuner = Tuner(
            objective=keras_tuner.Objective("val_score", "max"),
            max_trials=options.trials or SEARCHES[options.search].trials,
            seed=0,
            directory=folder,
            project_name=options.search,
        )
        tuner.search(verbose=0)


if __name__ == "__main__":
    main()
