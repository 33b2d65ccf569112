"""``--help`` of every command: light, and ending with an example that can be copied."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# One process for all commands: what any of them imports is found in the end.
SCRIPT = """
import contextlib, io, json, shlex, sys
import typer
from breakhis_search.cli.app import app, run_app

def walk(command, path):
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from walk(sub, [*path, name])

root = typer.main.get_command(app)
commands = dict((" ".join(path), command) for path, command in walk(root, []))
pages = {}
for path in commands:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run_app([*path.split(), "--help"])
    pages[path] = {"code": code, "text": out.getvalue()}

def parse(example):
    words = shlex.split(example)[3:]  # python -m breakhis_search
    depth = 2 if words[0] == "data" else 1
    path, rest = " ".join(words[:depth]), words[depth:]
    commands[path].make_context(path, rest)  # raises a usage error where an option is wrong
    return path

for page in pages.values():
    last = page["text"].rstrip().splitlines()[-1].strip()
    page["last"] = last
    page["of"] = parse(last.removeprefix("Example: "))
heavy = ("tensorflow", "keras", "jax", "mlflow", "optuna", "sklearn", "plotly", "pandas", "cv2")
json.dump({"pages": pages, "heavy": [m for m in heavy if m in sys.modules]}, sys.stdout)
"""


@pytest.fixture(scope="module")
def helped() -> dict:
    environment = {"COLUMNS": "80", "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy(helped):
    assert helped["heavy"] == []


def test_every_command_has_help(helped):
    wanted = {"run", "compare", "promote", "predict", "status", "ui", "doctor"}
    wanted |= {f"data {name}" for name in ("check", "describe", "demo", "download")}
    assert wanted <= set(helped["pages"])
    assert {p["code"] for p in helped["pages"].values()} == {0}


def test_every_help_ends_with_an_example_of_the_command(helped):
    for path, page in helped["pages"].items():
        assert page["last"].startswith("Example: python -m breakhis_search "), path
        assert page["of"].startswith(path), (
            "of the command itself, in one line, without typing errors"
        )
