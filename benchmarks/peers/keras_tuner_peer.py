"""A reference search with Keras Tuner's Bayesian tuner.

    python benchmarks/peers/keras_tuner_peer.py r1 --data DIR --weights DIR [--trials N]
        [--folder DIR]

Prints a line of JSON after every trial: seconds of each so far, its score, its backbone. With
``--folder`` a search that was cut off goes on there, as Keras Tuner does it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
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
    parser.add_argument("--folder", type=Path, help="where the search is kept; goes on there")
    options = parser.parse_args()
    use_backbone(options.search, options.backbone)
    pipelines = Pipelines(options.search, options.data)
    found: dict = {"peer": "keras_tuner", "seconds": [], "scores": [], "backbones": []}
    kept = options.folder / options.search / "found.json" if options.folder else None
    if kept is not None and kept.exists():
        found = json.loads(kept.read_text())
        print(json.dumps(found), flush=True)

    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial, *_, **__):
            began = time.perf_counter()
            values = trial.hyperparameters
            score = train(values, options.search, pipelines, options.weights)
            found["seconds"].append(time.perf_counter() - began)
            found["scores"].append(score)
            found["backbones"].append(values.values.get("backbone", "small_cnn"))
            print(json.dumps(found), flush=True)
            if kept is not None:
                kept.write_text(json.dumps(found))
            return {"val_score": score}

    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
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
