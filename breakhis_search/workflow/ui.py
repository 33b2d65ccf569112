"""``ui``: the MLflow UI on the store in use, and Optuna Dashboard on its studies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from breakhis_search.settings import Settings, mask_password
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.workflow import dashboard
from breakhis_search.workflow.dashboard import HOST, is_installed
from breakhis_search.workflow.process_group import Server, answers, require_free, serve_group

_START_TIMEOUT_S = 120.0
_MODEL_TRAINING = "?workflowType=machine_learning"
"""Opens MLflow's pages as *Model training*; by itself it shows those for language models."""


def serve_ui(
    settings: Settings, *, port: int, dashboard_port: int, say: Callable[[str], None]
) -> None:
    """Serve MLflow's UI, and Optuna's where it is installed, until Ctrl-C or a signal ends both.

    Args:
        settings: Where things are.
        port: Of MLflow's UI, on loopback.
        dashboard_port: Of Optuna Dashboard.
        say: Told where to look.

    Raises:
        TrackingError: A port is taken, the store cannot be opened, or a server does not start.
    """
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        experiments = client.search_experiments(filter_string="name LIKE 'breakhis-%'")
    servers: list[Server] = []
    where: list[str] = []
    if settings.has_local_store:
        address = f"http://{HOST}:{port}"
        servers.append(_mlflow(settings, port))
        where += _where_to_look(address, experiments)
    else:
        say(f"Runs are kept by a server: open {mask_password(settings.tracking_uri)}")
    if is_installed():
        servers.append(_dashboard(settings, dashboard_port))
        where.append(f"Optuna Dashboard on http://{HOST}:{dashboard_port}/dashboard/")
    else:
        say("(Optuna Dashboard beside it: pip install 'breakhis-search[dashboard]')")
    if not servers:
        return
    say(f"starting {' and '.join(server.name for server in servers)} …")
    serve_group(servers, when_up=lambda: say("\n".join(where)), start_timeout_s=_START_TIMEOUT_S)


def _mlflow(settings: Settings, port: int) -> Server:
    require_free(HOST, port)
    address = f"http://{HOST}:{port}"
    return Server(
        "MLflow",
        _command(settings, port),
        _environment(settings),
        is_up=lambda: answers(f"{address}/health"),
    )


def _dashboard(settings: Settings, port: int) -> Server:
    require_free(HOST, port, option="--dashboard-port")
    return Server(
        "Optuna Dashboard",
        [sys.executable, "-m", dashboard.__name__, str(port)],
        {**os.environ, "BREAKHIS_STUDIES_URI": settings.studies_uri},
        is_up=lambda: answers(f"http://{HOST}:{port}/dashboard/"),
    )


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


def _where_to_look(address: str, experiments: Sequence[Any]) -> Iterator[str]:
    yield f"MLflow UI on {address} (Ctrl-C ends it)"
    for experiment in sorted(experiments, key=lambda known: known.name):
        runs = f"{address}/#/experiments/{experiment.experiment_id}/runs{_MODEL_TRAINING}"
        yield f"  runs of {experiment.name}: {runs}"
    yield f"  registered models: {address}/#/models{_MODEL_TRAINING}"
    yield "  (trials: the + of a study's row; a trial's page: its Artifacts → figures/trial.html)"
    yield 'On any other page choose "Model training" at the top left, not "GenAI".'
