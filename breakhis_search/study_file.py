"""From a YAML file, a profile and ``--set`` to a checked :class:`StudyConfig`.

All errors are reported at once, each with the line it stands on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from breakhis_search.config import StudyConfig
from breakhis_search.errors import ConfigError

Location = tuple[str | int, ...]
SpaceCheck = Callable[[Mapping[str, Any], Any], Iterator[tuple[Location, str]]]
"""Finds what is wrong with a raw ``space:`` and ``enqueue:``: (location, message)."""


_OVERRIDE = "--set "


class _Loader(yaml.SafeLoader):
    """Safe YAML as people expect it: ``1e-4`` is a number, ``off`` and dates are text."""


_UNEXPECTED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _UNEXPECTED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


@dataclass
class _Document:
    """Plain values with the place each one came from."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, str] = field(default_factory=dict)

    def place_of(self, location: Location) -> str:
        """Where a value stands; of a section that overrides went into, those overrides."""
        own = [p for k, p in self.places.items() if location and k[: len(location)] == location]
        overrides = [place for place in own if place.startswith(_OVERRIDE)]
        if overrides:
            return ", ".join(dict.fromkeys(overrides))
        for length in range(len(location), -1, -1):
            if location[:length] in self.places:
                return self.places[location[:length]]
        return "the study file"


SHIPPED_STUDIES = Path(__file__).resolve().parent / "experiments"
"""The study files that come with the package: those of ``experiments/`` in the clone, to which the
folder in the package is a link that becomes a copy in a wheel."""


def available_studies(folder: Path) -> list[str]:
    """Return the names of the study files in a folder."""
    return sorted(p.stem for p in folder.glob("*.yaml"))


def known_studies(folder: Path) -> list[str]:
    """Return the names that :func:`find_study_file` finds with this folder."""
    return sorted({*available_studies(folder), *available_studies(SHIPPED_STUDIES)})


def find_study_file(study: str, folder: Path) -> Path:
    """Return the file of a study given by name (``binary``) or path (``my/study.yaml``).

    A name is looked for in the folder, and then among the studies that come with the package.

    Raises:
        ConfigError: There is no such file; the known names are listed.
    """
    direct = Path(study)
    if direct.suffix in {".yaml", ".yml"}:
        if direct.is_file():
            return direct
        raise ConfigError(f"there is no study file {study}", remedy="check the path")
    for place in (folder, SHIPPED_STUDIES):
        named = place / f"{study}.yaml"
        if named.is_file():
            return named
    known = known_studies(folder)
    raise ConfigError(
        f"there is no study {study!r}",
        expected=f"one of {', '.join(known)}",
        remedy=_instead_of(study, known),
    )


def _instead_of(study: str, known: Sequence[str]) -> str:
    """What to do about a study that is not there."""
    base = study.partition("@")[0]
    if base in known:
        return f"name it without its version: {base}"
    if base.removesuffix("-demo") in known:
        name = base.removesuffix("-demo")
        return f"name it without -demo: {name} (without images `run` works on the demo)"
    return _did_you_mean(study, known) or "name a study, or give the path of a .yaml file"


def load_study(
    file: Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    check_space: SpaceCheck | None = None,
) -> StudyConfig:
    """Return the checked study of a file, with a profile and ``key=value`` overrides on top.

    Args:
        file: The YAML file.
        profile: Name under ``profiles:`` to lay over the file.
        overrides: ``--set`` arguments, ``section.key=value``; values are read as YAML.
        check_space: Finds errors in ``space:`` that only the models can know.

    Raises:
        ConfigError: All that is wrong, one line each, with line numbers.
    """
    document = _read(file)
    problems: list[str] = []
    profiles = document.values.pop("profiles", None) or {}
    if profile is not None:
        _lay_profile(document, profiles, profile, file)
    for override in overrides:
        _set(document, override)
    if check_space and isinstance(document.values.get("space"), dict):
        problems += [
            f"{document.place_of(location)}: {message}"
            for location, message in check_space(
                document.values["space"], document.values.get("enqueue")
            )
        ]
    try:
        config = StudyConfig.model_validate(document.values)
    except ValidationError as error:
        problems = list(_pydantic_problems(error, document)) + problems
    if problems:
        typed = any(problem.startswith(_OVERRIDE) for problem in problems)
        where = f"{file.name} with what --set says" if typed else file.name
        raise ConfigError(
            f"{where} has {len(problems)} error{'s' * (len(problems) > 1)}:\n  "
            + "\n  ".join(problems)
        )
    return config


def study_name(study: str) -> str:
    """Return the name of a study that may be given by the path of its file, without a check of it.

    Raises:
        ConfigError: There is no such file, or it holds no name.

    >>> study_name("binary@v2")
    'binary@v2'
    """
    if Path(study).suffix not in {".yaml", ".yml"}:
        return study
    name = _read(find_study_file(study, Path())).values.get("name")
    if name is None:
        raise ConfigError(
            f"{study} gives its study no name", remedy="add a line such as name: mine"
        )
    return str(name)


def profile_names(file: Path) -> list[str]:
    """Return the names under ``profiles:`` of a study file."""
    profiles = _read(file).values.get("profiles")
    return list(profiles) if isinstance(profiles, dict) else []


def peek(file: Path, overrides: Sequence[str], section: str, key: str) -> Any:
    """Return one raw value of a study file with overrides on top, unchecked; ``None`` if absent.

    For what must be known before a profile can be chosen.
    """
    document = _read(file)
    for override in overrides:
        _set(document, override)
    values = document.values.get(section)
    return values.get(key) if isinstance(values, dict) else None


_DEEPEST, _MOST_VALUES = 20, 100_000
"""Of values in a study file; the largest study has four levels and some hundred values."""


def _read(file: Path) -> _Document:
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
    except RecursionError as error:
        raise ConfigError(
            f"{file.name} is nested too deeply", remedy="a study needs five levels at most"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error})", remedy="check the file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file.name}:{mark.line + 1}" if mark else file.name
        raise ConfigError(
            f"{where}: not valid YAML ({getattr(error, 'problem', error)})",
            remedy="correct the line; indent with spaces",
        ) from error
    document = _Document()
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file.name} is not a study", expected="a mapping with name, task, …")
    document.values = _plain(node, (), document.places, file.name)
    return document


def _plain(node: yaml.Node, location: Location, places: dict[Location, str], file: str) -> Any:
    """Plain Python values of a YAML node; notes the line of every one."""
    places[location] = f"{file}:{node.start_mark.line + 1}"
    if len(location) > _DEEPEST or len(places) > _MOST_VALUES:  # an anchor may hold itself
        raise ConfigError(
            f"{file}:{node.start_mark.line + 1}: this is nested without end",
            expected=f"at most {_DEEPEST} levels and {_MOST_VALUES} values",
            remedy="write it out without anchors (&) and aliases (*)",
        )
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node, file)
            if not isinstance(key, str):
                raise ConfigError(
                    f"{file}:{key_node.start_mark.line + 1}: a key must be a name",
                    received=repr(key),
                    remedy="write it as text",
                )
            if key in result:
                raise ConfigError(
                    f"{file}:{key_node.start_mark.line + 1}: {key!r} is given twice",
                    remedy="keep one of them",
                )
            result[key] = _plain(value_node, (*location, key), places, file)
            places[(*location, key)] = f"{file}:{key_node.start_mark.line + 1}"
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(n, (*location, i), places, file) for i, n in enumerate(node.value)]
    return _scalar(node, file)


def _scalar(node: yaml.Node, file: str) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"{file}:{node.start_mark.line + 1}: this value cannot be read",
            received=str(getattr(error, "problem", error)),
            remedy="write a plain value, or put it in quotes",
        ) from error
    finally:
        loader.dispose()


def _lay_profile(document: _Document, profiles: Any, profile: str, file: Path) -> None:
    if not isinstance(profiles, dict) or profile not in profiles:
        known = list(profiles) if isinstance(profiles, dict) else []
        raise ConfigError(
            f"{file.name} has no profile {profile!r}",
            expected=f"one of {', '.join(map(str, known))}" if known else "profiles in the file",
            remedy=_did_you_mean(profile, known) or "choose another --profile",
        )
    overlay = profiles[profile] or {}
    if not isinstance(overlay, dict):
        raise ConfigError(f"{file.name}: profile {profile!r} is not a mapping")
    _merge(document.values, overlay, (), document.places, ("profiles", profile))


def _merge(
    base: dict[str, Any],
    overlay: Mapping[str, Any],
    location: Location,
    places: dict[Location, str],
    source: Location,
) -> None:
    """Lay ``overlay`` over ``base``; an entry of ``space`` is replaced whole."""
    for key, value in overlay.items():
        here, there = (*location, key), (*source, key)
        deeper = isinstance(value, dict) and isinstance(base.get(key), dict)
        if deeper and location[:1] != ("space",):
            _merge(base[key], value, here, places, there)
        else:
            base[key] = value
            moved = {k: v for k, v in places.items() if k[: len(there)] == there}
            places.update({(*here, *k[len(there) :]): v for k, v in moved.items()})


def _set(document: _Document, override: str) -> None:
    """Apply one ``section.key=value``; names in ``space`` may hold dots and slashes."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            "--set was not understood",
            expected="key=value, such as search.trials=10",
            received=repr(override),
        )
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"--set {key}: the value is not valid YAML ({text!r})") from error
    head, _, rest = key.strip().partition(".")
    path = [head, rest] if head == "space" and rest else key.strip().split(".")
    target = document.values
    for step in path[:-1]:
        target = target.setdefault(step, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {key}: {step!r} is not a section")
    target[path[-1]] = value
    for place in [p for p in document.places if p[: len(path)] == tuple(path)]:
        del document.places[place]  # what stood in the file below it is gone
    document.places[tuple(path)] = f"{_OVERRIDE}{key.strip()}"


def _pydantic_problems(error: ValidationError, document: _Document) -> Iterator[str]:
    seen: set[str] = set()
    # A value of `space` is a union: pydantic complains once per member. The first of what a range
    # says about itself is the one to show, so those come first and one line a name is enough.
    for detail in sorted(error.errors(), key=lambda d: "Range" not in d["loc"]):
        location = _in_the_file(detail["loc"])
        message = _say(detail, location)
        if location[:1] == ("space",) and len(location) > 1:
            location = location[:2]
            if not isinstance(detail["input"], dict):
                message = "expected a value, a list of choices or {low, high, log, step}"
        name = ".".join(map(str, location)) or "the study"
        if name not in seen:
            seen.add(name)
            place = document.place_of(location)
            # An override's place is the name of what it sets.
            yield (
                f"{place}: {message}"
                if place == _OVERRIDE + name
                else f"{place}: {name}: {message}"
            )


def _in_the_file(location: Location) -> Location:
    """Return the keys of the file in a location of pydantic, which names members of unions, too.

    A section and a key in it, whatever they are called, are the file's; unions stand below.

    >>> _in_the_file(("space", "head/units", "tuple[int]", 0)), _in_the_file(("float",))
    (('space', 'head/units', 0), ('float',))
    """
    members = re.compile(r"^(Range|tuple\[|bool$|int$|float$|str$)")
    below = (part for part in location[2:] if isinstance(part, int) or not members.match(part))
    return (*location[:2], *below)


def _say(detail: Any, location: Location) -> str:
    if detail["type"] == "extra_forbidden":
        hint = _did_you_mean(str(location[-1]), _known_keys(location[:-1]))
        hint = hint or _did_you_mean_elsewhere(str(location[-1]))
        return "unknown key" + (f"; {hint}" if hint else "")
    if detail["type"] == "missing":
        return "is missing"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    return f"{message[0].lower()}{message[1:]}, received {detail['input']!r}"


def _known_keys(section: Location) -> list[str]:
    model: Any = StudyConfig
    for part in section:
        info = model.model_fields.get(str(part))
        model = getattr(info, "annotation", None)
        if not hasattr(model, "model_fields"):
            return []
    return list(model.model_fields)


def _did_you_mean_elsewhere(key: str) -> str | None:
    """A full name for a key that lacks its section, such as ``space.`` of a hyperparameter."""
    if "/" in key:
        return f"did you mean 'space.{key}'?"
    full = [f"{section}.{name}" for section in _known_keys(()) for name in _known_keys((section,))]
    same = [name for name in full if name.partition(".")[2] == key]
    return f"did you mean {same[0]!r}?" if same else _did_you_mean(key, full)


def _did_you_mean(word: str, known: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    return f"did you mean {close[0]!r}?" if close else None
