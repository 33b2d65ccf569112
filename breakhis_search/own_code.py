"""Code of the user's own, named ``module:name`` in a study file.

Modules are found in the folder a command is typed in, or installed in its environment. Nothing of
the package is edited for it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from breakhis_search.errors import ConfigError, TrialFailure

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_own_name(text: str) -> bool:
    """Tell whether a text has the form ``module:name``.

    >>> is_own_name("my_sampling:hard_patients"), is_own_name("patient_balanced")
    (True, False)
    """
    return bool(_NAME.fullmatch(text))


def look_in(folder: Path) -> None:
    """Let modules in a folder be found by every import of this process."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def is_there(name: str) -> bool:
    """Tell whether the module of ``module:name`` can be found; it is not imported.

    Of ``package.module:name`` only the package is looked for: finding what is in it would import
    it, and with it perhaps Keras.
    """
    top = name.partition(":")[0].partition(".")[0]
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # ValueError: a module that was put into sys.modules by hand
        return top in sys.modules


def load_named(name: str, *, role: str, key: str) -> Any:
    """Return what ``module:name`` names, or ``None`` where the module has nothing of that name.

    Args:
        name: For instance ``my_models:MyHyperModel``.
        role: What it is to be; for messages.
        key: Where in the study file it is named; for messages.

    Raises:
        ConfigError: The module cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # someone else's code: whatever it raises when it is imported
        raise ConfigError(
            f"cannot import {module_name!r}",
            expected=f"the module of a {role}, in this folder or installed",
            received=f"{type(error).__name__}: {error}",
            remedy=f"correct the module, or {key} in the study file",
        ) from error
    return getattr(module, attribute, None)


@contextmanager
def tried_on(example: str) -> Iterator[None]:
    """Turn what fails in the block, before anything is trained, into an error of the study file.

    Args:
        example: What the code is tried on, in words.

    Raises:
        ConfigError: It fails.
    """
    try:
        yield
    except TrialFailure as failure:
        raise ConfigError(
            f"{failure.what} (of an example: {example})",
            expected=failure.expected,
            received=failure.received,
            remedy=failure.remedy,
        ) from failure


def load_function(name: str, *, role: str, key: str) -> Callable[..., Any]:
    """Return the function that ``module:function`` names.

    Args:
        name: For instance ``my_sampling:hard_patients``.
        role: What it is to be, such as ``sampling strategy``; for messages.
        key: Where in the study file it is named; for messages.

    Raises:
        ConfigError: The module cannot be imported, or holds no function of that name.
    """
    found = load_named(name, role=role, key=key)
    if not callable(found):
        module_name, _, function_name = name.partition(":")
        raise ConfigError(
            f"{name!r} is no {role}",
            expected=f"a function {function_name} in {module_name}",
            received="nothing of that name" if found is None else repr(found),
            remedy=f"correct {key} in the study file",
        )
    return found  # type: ignore[no-any-return]  # what it gives is checked where it is called


def source_digest(name: str, folder: Path) -> str | None:
    """Return the sha256 of the file in a folder that defines ``module:name``.

    ``None`` for what is not in the folder: an installed package is known by its name alone.
    """
    path = folder.joinpath(*name.partition(":")[0].split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()
    return None
