"""Optuna Dashboard on the studies of a folder: the process that ``ui`` starts beside MLflow's.

    python -m breakhis_search.workflow.dashboard PORT

The address of the database comes from the environment, as everywhere: it may hold a password.
"""

from __future__ import annotations

import importlib.util
import sys

from breakhis_search.settings import read_settings
from breakhis_search.study.storage import open_storage

HOST = "127.0.0.1"


def is_installed() -> bool:
    """Tell whether Optuna Dashboard can be started here."""
    return importlib.util.find_spec("optuna_dashboard") is not None


def main(arguments: list[str]) -> None:
    """Serve it on loopback until the process is ended.

    Args:
        arguments: The port.
    """
    from optuna_dashboard import run_server

    run_server(open_storage(read_settings().studies_uri), host=HOST, port=int(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
