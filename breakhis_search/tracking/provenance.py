"""Where a result came from: commit, package versions, host."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from breakhis_search import __version__
from breakhis_search.tracking import keys

_PACKAGES = ("tensorflow", "jax", "keras", "keras-tuner", "optuna", "mlflow", "numpy", "pandas")


@cache
def provenance_tags() -> dict[str, str]:
    """Return tags that name the code and the versions a run was made with."""
    tags = {f"{keys.VERSIONS}{name}": _version_of(name) for name in _PACKAGES}
    tags[f"{keys.VERSIONS}breakhis_search"] = __version__
    tags[f"{keys.VERSIONS}python"] = platform.python_version()
    tags[keys.GIT_COMMIT] = git_commit() or "unknown"
    return tags


def git_commit() -> str | None:
    """Return the commit this package's source is at, with ``-dirty`` where it is changed."""
    try:
        described = subprocess.run(
            [
                "git",
                "-C",
                str(Path(__file__).parent),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
                "--match",
                "",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
