"""A model of a run, from its journal to a logged model in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from breakhis_search.tracking import keys
from breakhis_search.tracking.datasets import dataset_digest, dataset_name
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.model_parts import parts_of, put_together
from breakhis_search.tracking.record_batch import MAX_ENTITIES

_NOT_OF_A_MODEL = (keys.EPOCH, keys.SECONDS, "device/", "system/")  # how a run went, no scores
_MODEL_FACTS = (keys.ARCHITECTURE, keys.SAMPLING, keys.STAGE, keys.TRIAL_NUMBER, keys.SEED)


def send_model(
    client: Any, run_id: str, journal: Journal, *, name: str, tags: Mapping[str, str]
) -> None:
    """Create, fill and finalise a logged model; a half-sent one is filled again.

    Args:
        client: MLflow's.
        run_id: Of the run that the model is of.
        journal: Where the model lies, whole or in parts; nothing is done where it does not.
        name: Of the model.
        tags: Of the model, beside what the run says of it.
    """
    from mlflow.entities import LoggedModelOutput

    folder = journal.models / name
    if not (folder.is_dir() or parts_of(folder).is_file()):
        return  # delivered before; the cursor was lost
    with journal.disk_errors():
        put_together(folder)
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    tag = f"tags.`{keys.TRIAL_UID}` = '{journal.uid}'"
    found = [
        m for m in client.search_logged_models([experiment], filter_string=tag) if m.name == name
    ]
    all_tags = {**_facts_of(run), **tags, keys.TRIAL_UID: journal.uid}
    if not found:
        model = client.create_logged_model(
            experiment,
            name=name,
            source_run_id=run_id,
            tags=all_tags,
            model_type="classifier",
        )
    elif str(found[0].status).endswith("READY"):
        return
    else:  # it is filled with files of now
        model = found[0]
        client.set_logged_model_tags(model.model_id, all_tags)
    client.log_model_artifacts(model.model_id, str(folder))
    # Before it is ready: a model that is ready is not looked at again.
    _link_scores(client, run, model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, step=0)])


def _link_scores(client: Any, run: Any, model_id: str) -> None:
    """Link the scores of a run to its model, with their own times: twice is as once."""
    from mlflow.entities import Metric

    tags = run.data.tags
    digest = dataset_digest(tags)
    name = dataset_name(tags) if digest else None
    scores = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id, name, digest)
        for m in run.data._metric_objs  # noqa: SLF001 - the only way to the times in one call
        if not m.key.startswith(_NOT_OF_A_MODEL)
    ]
    for start in range(0, len(scores), MAX_ENTITIES):
        few = scores[start : start + MAX_ENTITIES]
        client.log_batch(run.info.run_id, metrics=few)


def _facts_of(run: Any) -> dict[str, str]:
    """What a run says of its model, as tags to sort and filter models by."""
    return {name: run.data.tags[name] for name in _MODEL_FACTS if name in run.data.tags}
