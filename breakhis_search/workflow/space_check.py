"""What the models can say against a study's ``space:`` and ``enqueue:``, before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from breakhis_search.data.draws import STRATEGY
from breakhis_search.errors import ConfigError
from breakhis_search.models.architectures import ARCHITECTURES, get_architecture
from breakhis_search.models.recorder import Declaration
from breakhis_search.models.space import ARCHITECTURE, LIMITS, record_space
from breakhis_search.own_code import is_own_name, is_there
from breakhis_search.study_file import Location

Problem = tuple[Location, str]


def check_space(space: Mapping[str, Any], enqueue: Any = ()) -> Iterator[Problem]:
    """Yield what is wrong with a raw ``space:`` and ``enqueue:``: (location, message)."""
    chosen = space.get(ARCHITECTURE, list(ARCHITECTURES))
    names = [chosen] if isinstance(chosen, str) else chosen
    if not isinstance(names, list) or not names:
        yield ("space", ARCHITECTURE), f"{ARCHITECTURE}: a name or a list of names is expected"
        return
    wrong = list(_wrong_architectures(names, is_list=isinstance(chosen, list)))
    yield from wrong
    if wrong:
        return
    declared = record_space([str(n) for n in names])
    foreign = tuple(f"{str(n).rpartition(':')[2]}/" for n in names if ":" in str(n))
    for name, value in space.items():
        if name != ARCHITECTURE and not str(name).startswith(foreign or ("\0",)):
            for message in _wrong_entry(str(name), value, declared):
                yield ("space", name), message
    yield from _wrong_first_trials(enqueue, declared, foreign)


def _wrong_architectures(names: list[Any], *, is_list: bool) -> Iterator[Problem]:
    for position, name in enumerate(names):
        try:
            architecture = get_architecture(str(name))
            message = _not_there(str(name)) if architecture.family == "foreign" else None
        except ConfigError as error:
            message = str(error)
        if message is not None:
            where: Location = ("space", ARCHITECTURE, position)
            yield (where if is_list else where[:2]), message


def _not_there(name: str) -> str | None:
    """What is wrong with a ``module:name`` whose module nobody can find; ``None`` otherwise."""
    if is_there(name):
        return None
    return f"{name}: there is no module {name.partition(':')[0]} in this folder or its environment"


def _wrong_entry(name: str, value: Any, declared: Mapping[str, Declaration]) -> Iterator[str]:
    declaration = declared.get(name)
    if declaration is None:
        # A name of an architecture that is not searched here is no error: profiles share a space.
        if name not in (everything := record_space(list(ARCHITECTURES))):
            yield f"{name}: unknown hyperparameter; {_known(name, list(everything))}"
        return
    if isinstance(value, dict):
        if _is_text(declaration):
            yield f"{name}: a range needs numbers; known: {_listed(declaration.choices)}"
            return
        bounds = [value.get("low"), value.get("high")]
        values = [b for b in bounds if b is not None] + ([value["step"]] if "step" in value else [])
    else:
        values = value if isinstance(value, list) else [value]
    for one in values:
        yield from _wrong_value(one, declaration)


def _wrong_value(value: Any, declaration: Declaration) -> Iterator[str]:
    name = declaration.name
    if _is_text(declaration):
        if name == STRATEGY and is_own_name(str(value)):
            if message := _not_there(str(value)):
                yield message
        elif value not in declaration.choices:
            more = " and module:function" if name == STRATEGY else ""
            yield f"{name}: unknown {value}; known: {_listed(declaration.choices)}{more}"
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield f"{name}: a number is expected, received {value!r}"
        return
    whole = declaration.kind == "int" or isinstance(declaration.default, int)
    if whole and value != int(value):
        yield f"{name}: a whole number is expected, received {value:g}"
    low, high = LIMITS[name]
    if not low <= value <= high:
        yield f"{name}: {value:g} is impossible; expected {low:g} to {high:g}"


def _wrong_first_trials(
    enqueue: Any, declared: Mapping[str, Declaration], foreign: tuple[str, ...]
) -> Iterator[Problem]:
    for position, values in enumerate(enqueue if isinstance(enqueue, list) else []):
        for name, value in values.items() if isinstance(values, dict) else []:
            where: Location = ("enqueue", position, name)
            if str(name).startswith(foreign or ("\0",)):
                continue
            if name not in declared:
                yield where, f"{name}: unknown hyperparameter; {_known(name, list(declared))}"
            else:
                for message in _wrong_value(value, declared[name]):
                    yield where, message


def _is_text(declaration: Declaration) -> bool:
    return isinstance(declaration.default, str)


def _listed(choices: tuple[Any, ...]) -> str:
    return ", ".join(map(str, choices))


def _known(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
