"""``serve``: MLflow's own scoring server on a registered version."""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from breakhis_search.comparison.version_facts import read_facts
from breakhis_search.serving.verification import NO_PICKLE
from breakhis_search.settings import Settings
from breakhis_search.tracking.store import read_store, tracking_errors
from breakhis_search.training.devices import BACKEND_VARIABLES
from breakhis_search.workflow.loading import verified_copy
from breakhis_search.workflow.prediction import find_registered, model_name_of
from breakhis_search.workflow.process_group import (
    Server,
    answers,
    require_free,
    serve_group,
    without_proxy,
)

_START_TIMEOUT_S = 180.0  # it imports TensorFlow and loads the model before it answers


@dataclass(frozen=True)
class ServeRequest:
    """The options of ``serve``, as typed."""

    study: str
    version: str | None = None
    alias: str | None = None
    demo: bool = False
    host: str = "127.0.0.1"
    port: int = 5001


def serve_model(request: ServeRequest, settings: Settings, say: Callable[[str], None]) -> None:
    """Serve a version over HTTP until Ctrl-C or a signal ends it.

    Which version it is, is settled now: after a promotion the next start serves the new champion.

    Raises:
        RegistryError: There is no such version, or its files are not what was registered.
        TrackingError: The port is taken, or the server does not start.
    """
    name = model_name_of(request.study, settings, demo=request.demo)
    client = read_store(settings)
    with tracking_errors(settings.tracking_uri):
        found = find_registered(
            client, name, request.study, version=request.version, alias=request.alias
        )
        facts = read_facts(client, found, client.get_registered_model(name).aliases)
    require_free(request.host, request.port)
    address = f"http://{request.host}:{request.port}"
    with verified_copy(found) as folder:  # what is served is what was checked
        say(f"starting MLflow's scoring server for {facts.in_words()} …")
        server = Server(
            "the server",
            [
                *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
                *("--model-uri", str(folder)),
                *("--host", request.host, "--port", str(request.port), "--workers", "1"),
            ],
            _environment(settings),
            is_up=lambda: answers(f"{address}/ping") and _scores(address),
        )
        serve_group(
            [server],
            when_up=lambda: say(_where_to_ask(address, name, str(found.version))),
            start_timeout_s=_START_TIMEOUT_S,
        )


def _scores(address: str) -> bool:
    """Tell whether the server answers about an image: the first takes it seconds, so it is ours."""
    _, image = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))
    record = {"image": base64.b64encode(image.tobytes()).decode()}
    asked = urllib.request.Request(  # noqa: S310 - http on this machine
        f"{address}/invocations",
        json.dumps({"dataframe_records": [record]}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with without_proxy().open(asked, timeout=_START_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:  # it has looked at it
        return True
    except OSError:
        return False


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **BACKEND_VARIABLES,
        **os.environ,
        **NO_PICKLE,
        # MLflow starts uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # Not on the command line: an address may hold a password, and everybody can read that.
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _where_to_ask(address: str, name: str, version: str) -> str:
    ask = (
        """printf '{"dataframe_records": [{"image": "%s"}]}' "$(base64 -w0 image.png)" |"""
        f" curl -s {address}/invocations -H 'Content-Type: application/json' -d @-"
    )
    return f"{name} version {version} on {address} (Ctrl-C ends it)\n  {ask}"
