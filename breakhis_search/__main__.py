"""``python -m breakhis_search``: runs the command line and turns errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
import warnings

# TensorFlow's C++ code logs to stderr from its first import on; 3 leaves only fatal messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# MLflow asks home for news and GitPython for a git binary; a search needs neither.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def main() -> None:
    """Run the command line; exit 0 ok, 1 error, 2 usage, 130 interrupted."""
    from breakhis_search.cli.app import run_app

    # Warnings are about our libraries, not about the user's work; python -W shows them.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):  # progress is to be seen in a log file, too
        sys.stdout.reconfigure(line_buffering=True)
    sys.exit(run_app(sys.argv[1:]))


if __name__ == "__main__":
    main()
