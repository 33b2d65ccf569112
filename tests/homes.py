"""Folders of users: where a study is searched in tests, and what was found is copied from."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.tracking._tracking_service import utils as mlflow_utils

from breakhis_search.cli.app import run_app
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking.store import open_store

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"

TINY = [
    "--profile=demo",
    "--set=data.height_px=32",
    "--set=data.width_px=48",
    "--set=protocol.folds=2",
    "--set=training.max_epochs=2",
    "--set=training.batch_size=16",
    "--set=search.startup_trials=8",
    "--set=search.models_kept=1",
    "--set=space.small_cnn/blocks=2",
    "--set=space.small_cnn/filters=16",
    "--set=finalists.count=1",
    "--set=finalists.seeds=1",
    "--set=registration.floors={image/auroc: 0.01}",
    "--set=registration.sealed_floors={}",  # champion at once, where there is none
]


@dataclass
class Home:
    """A user's folder: experiments, mlruns, cache; commands run inside it."""

    folder: Path
    demo: Path

    @property
    def settings(self) -> Settings:
        return read_settings(home=self.folder)

    @property
    def client(self) -> Any:
        return open_store(self.settings)

    def run(self, *arguments: str) -> int:
        """Run a command as the user would, in this folder; return its exit code."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return run_app(list(arguments))
        finally:
            os.chdir(before)

    def search(self, study: str, trials: int, *more: str) -> int:
        """Run a tiny search on the demo."""
        options = ["--data", str(self.demo), "--trials", str(trials), "--workers=0", *TINY, *more]
        return self.run("run", "--study", study, *options)


def copy_home(original: Home, folder: Path) -> Home:
    """Return a folder with all that was found in another, which writes into its own stores."""
    (folder / "experiments").symlink_to(EXPERIMENTS)
    new, old = folder / "mlruns", original.folder / "mlruns"
    shutil.copytree(old, new)
    # The database names the folder of artifacts in full.
    moves = (
        "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)",
        "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)",
        "UPDATE logged_models SET artifact_location = replace(artifact_location, ?, ?)",
        "UPDATE model_versions SET storage_location = replace(storage_location, ?, ?)",
    )
    with closing(sqlite3.connect(new / "mlflow.db")) as database, database:
        for move in moves:
            database.execute(move, (str(old), str(new)))
        left = [line for line in database.iterdump() if f"{old}/artifacts" in line]
    assert not left, left[:3]
    forget_where_artifacts_lie()
    return Home(folder, original.demo)


def forget_where_artifacts_lie() -> None:
    """MLflow remembers it by run id, whichever store was asked."""
    mlflow_utils._artifact_repos_cache.clear()
