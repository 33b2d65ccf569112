"""A model by the number of its trial: what is said where that trial can't be taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from breakhis_search.comparison.named_models import find_model
from breakhis_search.errors import ComparisonError
from breakhis_search.settings import read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import open_store

STATES = ("complete", "complete", "pruned", "failed", "running", "interrupted", "reused")
REASONS = {"pruned": "worse than the median", "failed": "the loss is not finite"}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Any:
    """A study with a trial of every state, of which the first is a finalist too."""
    home: Path = tmp_path_factory.mktemp("home")
    client = open_store(read_settings({}, home=home))
    experiment = client.create_experiment("breakhis-binary")
    study = {keys.STUDY: "binary@v1", keys.STUDY_UID: "uid", keys.OBJECTIVE: "auroc"}

    def add(role: str, number: int, state: str, **more: str) -> None:
        stage = keys.STAGE_FINALISTS if role == keys.ROLE_FINALIST else keys.STAGE_SEARCH
        tags = {keys.ROLE: role, keys.STAGE: stage, keys.STATE: state}
        tags |= {keys.TRIAL_NUMBER: str(number), keys.FAILURE: REASONS.get(state, "")}
        run = client.create_run(experiment, tags={**study, **tags, **more})
        if state == "complete":
            client.log_metric(run.info.run_id, f"{keys.METRIC_OBJECTIVE}/auroc", 0.9)

    client.create_run(experiment, tags={**study, keys.ROLE: keys.ROLE_STUDY})
    for number, state in enumerate(STATES):
        add(keys.ROLE_TRIAL, number, state, **({keys.SAME_AS: "1"} if state == "reused" else {}))
    add(keys.ROLE_FINALIST, 0, "complete")
    return client


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("2", "trial 2 of binary@v1 was pruned (worse than the median)"),
        ("3", "trial 3 of binary@v1 failed (the loss is not finite)"),
        ("4", "trial 4 of binary@v1 has not ended"),
        ("5", "trial 5 of binary@v1 was cut off (the same `run` command goes on with it)"),
        ("6", "trial 6 of binary@v1 was not trained: it has the values of trial 1"),
        ("9", "binary@v1 has no trial 9"),
    ],
)
def test_what_became_of_a_trial_is_said_and_those_that_can_be_taken(client, number, says):
    with pytest.raises(ComparisonError) as told:
        find_model(client, "binary", number)
    assert told.value.what == says
    assert told.value.expected == "a complete trial: 0, 1"


def test_a_number_means_the_finalist_unless_a_trial_is_wanted(client):
    assert find_model(client, "binary", "0").name == "binary@v1 finalist 0"
    assert find_model(client, "binary", "0", kinds=("trial",)).name == "binary@v1 trial 0"
