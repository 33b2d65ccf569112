"""Functions that a study file names as ``module:function``."""

from __future__ import annotations

import hashlib
import sys

import pytest

from breakhis_search.errors import ConfigError
from breakhis_search.own_code import is_own_name, is_there, load_function, look_in, source_digest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's that is looked in; its modules have names nobody else uses."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    look_in(tmp_path)
    return tmp_path


def test_a_function_of_the_folder_is_found(folder):
    (folder / "own_found.py").write_text("def answer():\n    return 42\n")
    assert is_there("own_found:answer")
    assert load_function("own_found:answer", role="metric", key="metrics:")() == 42


def test_looking_in_a_folder_twice_changes_nothing(folder):
    before = list(sys.path)
    look_in(folder)
    assert sys.path == before


def test_a_module_of_nowhere_is_not_there():
    assert not is_there("no_such_module_at_all:f")
    assert not is_there("no_such_package_at_all.part:f")


def test_looking_for_a_part_of_a_package_does_not_import_it(folder):
    (folder / "own_package").mkdir()
    (folder / "own_package" / "__init__.py").write_text("raise SystemError\n")
    assert is_there("own_package.part:f")
    assert "own_package" not in sys.modules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def answer(:\n", "SyntaxError"),
        ("raise RuntimeError('licence expired')\n", "RuntimeError: licence expired"),
    ],
    ids=["import", "syntax", "raises"],
)
def test_a_module_that_cannot_be_imported_says_why(folder, request, text, says):
    name = f"own_broken_{request.node.callspec.id}"
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=f"cannot import '{name}'.*{says}"):
        load_function(f"{name}:answer", role="metric", key="metrics:")


@pytest.mark.parametrize(
    ("text", "says"), [("", "nothing of that name"), ("answer = 3\n", "received 3")]
)
def test_what_is_no_function_is_told(folder, request, text, says):
    name = f"own_empty_{len(text)}"
    (folder / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=f"is no metric.*{says}"):
        load_function(f"{name}:answer", role="metric", key="metrics:")


def test_the_digest_is_that_of_the_file_that_defines_it(tmp_path):
    (tmp_path / "one.py").write_text("x = 1\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "__init__.py").write_text("")
    (tmp_path / "two" / "three.py").write_text("y = 2\n")
    assert source_digest("one:x", tmp_path) == hashlib.sha256(b"x = 1\n").hexdigest()
    assert source_digest("two:x", tmp_path) == hashlib.sha256(b"").hexdigest()
    assert source_digest("two.three:y", tmp_path) == hashlib.sha256(b"y = 2\n").hexdigest()


def test_an_installed_package_has_no_digest(tmp_path):
    assert source_digest("keras_tuner.applications:HyperResNet", tmp_path) is None


@pytest.mark.parametrize("text", ["focal", "module:", ":f", "a b:c", "a:b:c", "1a:b"])
def test_other_texts_are_no_names_of_own_code(text):
    assert not is_own_name(text)
