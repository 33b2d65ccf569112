"""A search does not so much as read the pixels of a sealed patient."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from breakhis_search.settings import read_settings
from breakhis_search.study.leases import Leases
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.workflow.preparation import Watcher, prepare_run
from breakhis_search.workflow.request import RunRequest
from breakhis_search.workflow.search import study_context


def test_search_needs_no_file_of_a_sealed_patient(home, tmp_path: Path, monkeypatch):
    data = shutil.copytree(home.demo, tmp_path / "data")
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(home.folder)
    request = RunRequest(
        "binary", data=data, profile="demo", overrides=("data.height_px=32", "data.width_px=48")
    )
    run = prepare_run(request, read_settings(), Watcher())
    sealed = run.split.table.iloc[run.split.test]
    assert len(sealed) > 0
    for path in sealed["path"]:
        (run.catalog.root / path).unlink()
    delivery = Delivery(run.client, run.settings)
    context = study_context(run, Watcher(), delivery, Leases(run.settings.studies_uri))
    assert len(context.images) == len(context.split.table) == len(run.split.development)
    assert not set(context.split.table["patient"]) & run.split.sealed.groups
    told = context.tags[keys.SEALED_TEST]
    assert re.fullmatch(
        rf"{len(run.split.sealed.groups)} patients \(\d benign, \d malignant\)", told
    )
    assert context.tags[keys.FORMULATION] == "MIB"
    assert keys.OFFICIAL_LEAKS not in context.tags
