"""``ui``: the MLflow UI on the store in use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from breakhis_search.settings import Settings, mask_password
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.workflow.process_group import answers, require_free, serve_group

HOST = "127.0.0.1"

_START_TIMEOUT_S = 120.0
_MODEL_TRAINING = "?workflowType=machine_learning"
"""Opens MLflow's pages as *Model training*; by itself it shows those for language models."""


def serve_ui(settings: Settings, *, port: int, say: Callable[[str], None]) -> None:
    """Serve MLflow's UI on loopback until Ctrl-C or a signal ends it, and all that it started.

    Raises:
        TrackingError: The port is taken, the store cannot be opened, or the server does not start.
    """
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        experiment = _newest_experiment(client)
    if not settings.has_local_store:
        say(f"Runs are kept by a server: open {mask_password(settings.tracking_uri)}")
        return
    require_free(HOST, port)
    say("starting MLflow …")
    address = f"http://{HOST}:{port}"
    serve_group(
        _command(settings, port),
        _environment(settings),
        is_up=lambda: answers(f"{address}/health"),
        when_up=lambda: say("\n".join(_where_to_look(address, experiment))),
        start_timeout_s=_START_TIMEOUT_S,
    )


def _newest_experiment(client: Any) -> Any | None:
    """The experiment of this program's newest run, if there is one."""
    known = client.search_experiments(filter_string="name LIKE 'breakhis-%'")
    by_id = {experiment.experiment_id: experiment for experiment in known}
    order = ["attributes.start_time DESC"]
    newest = client.search_runs(list(by_id), order_by=order, max_results=1) if by_id else []
    return by_id[newest[0].info.experiment_id] if newest else None


def _command(settings: Settings, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    return [*command, "--workers", "1", "--default-artifact-root", settings.artifacts_dir.as_uri()]


def _environment(settings: Settings) -> dict[str, str]:
    return {
        # Its workers for jobs of language models: eight processes that nothing here needs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        # Not on the command line: an address may hold a password, and everybody can read that.
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
    }


def _where_to_look(address: str, experiment: Any | None) -> Iterator[str]:
    yield f"MLflow UI on {address} (Ctrl-C ends it)"
    if experiment is not None:
        runs = f"{address}/#/experiments/{experiment.experiment_id}/runs{_MODEL_TRAINING}"
        yield f"  runs of {experiment.name}: {runs}"
    yield f"  registered models: {address}/#/models{_MODEL_TRAINING}"
    yield 'On any other page choose "Model training" at the top left, not "GenAI".'
