"""Where things are: environment variables and default places, read once.

This is the only module that reads ``os.environ``. All paths in :class:`Settings` are absolute.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import platformdirs


@dataclass(frozen=True)
class Settings:
    """Places and addresses of one invocation.

    Attributes:
        home: The folder that holds ``experiments/`` and ``mlruns/`` (the current folder).
        state_dir: ``mlruns/``: studies, journal, MLflow store and artifacts.
        cache_dir: Decoded images, file hashes, the demo (``BREAKHIS_CACHE``).
        tracking_uri: MLflow server or database (``MLFLOW_TRACKING_URI``).
        studies_uri: Optuna storage (``BREAKHIS_STUDIES_URI``).
        data_root: Dataset named by ``BREAKHIS_ROOT``, if set.
        keras_home: Where Keras keeps downloaded weights (``KERAS_HOME``).
        delivers_in_background: Whether a process of its own brings records to MLflow
            (``BREAKHIS_DELIVERY=inline``: training waits for it).
        checkpoints: Where runs at work keep what they have reached (``BREAKHIS_CHECKPOINTS``;
            for several machines a folder that all of them see).
    """

    home: Path
    state_dir: Path
    cache_dir: Path
    tracking_uri: str
    studies_uri: str
    data_root: Path | None
    keras_home: Path
    checkpoints: Path
    delivers_in_background: bool = True

    @property
    def journal_dir(self) -> Path:
        """Folder of the local records of every trial."""
        return self.state_dir / "journal"

    @property
    def node_dir(self) -> Path:
        """What ``mlruns/`` is to workers that Ray placed here: others may see the same home."""
        return self.state_dir / "nodes" / socket.gethostname()

    @property
    def journal_dirs(self) -> tuple[Path, ...]:
        """Folders of all local records of this machine: of its own runs, and of Ray's workers."""
        return self.journal_dir, self.node_dir / "journal"

    @property
    def journals_elsewhere(self) -> dict[str, Path]:
        """Folders of the records of other machines that see this home, by the machine's name."""
        nodes = self.state_dir / "nodes"
        places = sorted(nodes.iterdir()) if nodes.is_dir() else []
        return {p.name: p / "journal" for p in places if p.is_dir() and p != self.node_dir}

    @property
    def log_dir(self) -> Path:
        """Folder of what worker processes print, a file for each."""
        return self.state_dir / "logs"

    @property
    def artifacts_dir(self) -> Path:
        """Folder MLflow keeps artifacts in when the store is local."""
        return self.state_dir / "artifacts"

    @property
    def has_local_store(self) -> bool:
        """Whether MLflow writes to a database on this machine rather than to a server."""
        return not self.tracking_uri.startswith(("http://", "https://"))

    @property
    def shares_runs(self) -> bool:
        """Whether other machines may write to the same MLflow store."""
        return not self.tracking_uri.startswith("sqlite:")

    @property
    def is_unused(self) -> bool:
        """Whether runs and studies are to be kept in ``mlruns/`` and nothing was ever kept there.

        Opening a store would create it.
        """
        places = (self.tracking_uri, self.studies_uri)
        inside = all(place.startswith(f"sqlite:///{self.state_dir}/") for place in places)
        return inside and not any(
            Path(place.removeprefix("sqlite:///")).exists() for place in places
        )


def read_settings(
    environment: Mapping[str, str] | None = None, *, home: Path | None = None
) -> Settings:
    """Return the settings that environment variables and defaults give.

    Args:
        environment: Variables to read instead of ``os.environ``.
        home: Folder to use instead of the current one.
    """
    env = os.environ if environment is None else environment
    base = (home or Path.cwd()).resolve()
    state_dir = base / "mlruns"
    cache = env.get("BREAKHIS_CACHE") or platformdirs.user_cache_dir("breakhis_search")
    root = env.get("BREAKHIS_ROOT")
    return Settings(
        home=base,
        state_dir=state_dir,
        cache_dir=Path(cache).expanduser().resolve(),
        tracking_uri=_with_driver(env.get("MLFLOW_TRACKING_URI"))
        or f"sqlite:///{state_dir / 'mlflow.db'}",
        studies_uri=_with_driver(env.get("BREAKHIS_STUDIES_URI"))
        or f"sqlite:///{state_dir / 'studies.db'}",
        data_root=Path(root).expanduser().resolve() if root else None,
        keras_home=Path(env.get("KERAS_HOME") or Path.home() / ".keras"),
        checkpoints=Path(env.get("BREAKHIS_CHECKPOINTS") or state_dir / "checkpoints")
        .expanduser()
        .resolve(),
        delivers_in_background=env.get("BREAKHIS_DELIVERY") != "inline",
    )


def _with_driver(uri: str | None) -> str | None:
    """Return the address of a database with the driver that this project brings, if it names none.

    >>> _with_driver("postgresql://me@host/studies")
    'postgresql+psycopg2://me@host/studies'
    """
    return uri and re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", uri)


def forwarded_environment() -> dict[str, str]:
    """Return the variables that other machines must know to reach the servers of this run.

    They hold passwords: they go to nobody but the machines that work for it.
    """
    prefixes = ("MLFLOW_TRACKING_", "PG", "KERAS_BACKEND")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


@contextmanager
def environment_kept(*names: str) -> Iterator[None]:
    """Undo what the block does to environment variables: MLflow writes its addresses there.

    The next command of this process would take them for the user's own.
    """
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/'\"]*)@", re.IGNORECASE)  # up to the last @
_OF_A_DATABASE = re.compile(r"\b(?!https?:)([a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
"""The password of a database, unlike that in the address of a page, may hold slashes and quotes."""
_IN_QUERY = re.compile(
    r"((?:^|[?&\s])(?:[a-z_]*password|passwd|pwd|[a-z_]*token|secret|api_?key)=)[^&\s'\"]*",
    re.IGNORECASE,
)
_SECRET_VARIABLES = (
    "PGPASSWORD",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    # Of stores that MLflow keeps artifacts in.
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
)
_SHORTEST_SECRET = 4
"""Shorter values of those variables are not looked for: they would be found in every text."""


def mask_password(text: str) -> str:
    """Return an address, or any text with addresses in it, without passwords and tokens.

    >>> mask_password("postgresql://me:p@ss@host/db?sslpassword=x")
    'postgresql://me:***@host/db?sslpassword=***'
    >>> mask_password("see https://TOKEN@host and postgresql://me@host/db")
    'see https://***@host and postgresql://me@host/db'
    >>> mask_password("postgresql+psycopg2://me:Zm9v/Ym'Fy@host/db refused")
    'postgresql+psycopg2://me:***@host/db refused'
    """
    text = _OF_A_DATABASE.sub(r"\1:***@", text)
    return _IN_QUERY.sub(r"\1***", _USERINFO.sub(_masked, text))


def _masked(found: re.Match[str]) -> str:
    scheme, who = found[1], found[2]
    user, colon, _ = who.partition(":")
    if colon:
        return f"{scheme}://{user}:***@"
    # A name alone is that of a database user; of a web server it may be a token.
    return f"{scheme}://***@" if scheme.lower().startswith("http") else found[0]


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text for screens, logs and MLflow without any password that this process knows.

    Args:
        text: Such as the message of an error that somebody else raised.
        environment: Variables to look into instead of ``os.environ``.

    >>> without_secrets("password 'tops3cret' refused", {"PGPASSWORD": "tops3cret"})
    "password '***' refused"
    """
    env = os.environ if environment is None else environment
    masked = mask_password(text)
    for secret in _known_secrets(env):
        if len(secret) >= _SHORTEST_SECRET:
            masked = masked.replace(secret, "***")
    return masked


def _known_secrets(env: Mapping[str, str]) -> Iterator[str]:
    """Passwords of this process, as they are and as they stand in an address."""
    yield from (env[name] for name in _SECRET_VARIABLES if name in env)
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI"):
        _, _, rest = env.get(name, "").partition("://")
        who, at, _ = rest.rpartition("@")
        _, _, password = who.partition(":")
        if at and password:
            yield from (password, unquote(password))
