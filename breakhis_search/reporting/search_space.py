"""What a study searched: every hyperparameter with the bounds its values were drawn from.

A study file bounds some of what the code declares; where it says nothing, the code's own bounds
are searched. Both are put together here, for the report and for the model card. Where the trials
are at hand, what Optuna drew them from is taken instead: it also has what an architecture of the
user's own declares. Imports no Keras.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from breakhis_search.config import Range, SpaceValue
from breakhis_search.models.architectures import ARCHITECTURES, get_architecture
from breakhis_search.models.bounds import bounded, distribution_of
from breakhis_search.models.space import ARCHITECTURE, record_space, stage_spaces
from breakhis_search.own_code import is_own_name
from breakhis_search.study.pruning import STAGE
from breakhis_search.tracking import keys

Drawn = Mapping[tuple[str, str], Sequence[BaseDistribution]]
"""By stage and name: what values were drawn from; more than one where that was changed."""


def searched_space(config: Mapping[str, Any], trials: Sequence[FrozenTrial] = ()) -> dict[str, str]:
    """Return what each hyperparameter was searched over, in words, by its name.

    Names are in the order of the study file, then in that of the code. What no trial can have is
    left out, such as the focal gamma of a study without focal loss.

    Args:
        config: The study as it was run (``study.yaml``).
        trials: Of the study; without them an architecture of the user's own shows only what the
            study file bounds of it.

    >>> found = searched_space({"space": {"model/architecture": ["small_cnn"]}})
    >>> found["model/architecture"], found["head/dropout_rate"]
    ('small_cnn (pinned)', '0 to 0.6 in steps of 0.05')
    >>> found["optimizer/weight_decay"], found["sampling/focal_gamma"]
    ('1e-06 to 0.01, log scale', '0.5 to 3, only if sampling/strategy is focal')
    """
    if not config:  # the study file is not at hand: the code's space may be another one
        return {}
    by_stage = _spaces(config)
    drawn = _drawn_from(trials)
    bounds = {stage: dict(_stage(stage, space, drawn)) for stage, space in by_stage.items()}
    found = dict.fromkeys(name for stage in bounds.values() for name in stage)
    first = [name for name in config.get("space") or {} if name in found]
    return {
        name: _over_stages({stage: own.get(name) for stage, own in bounds.items()})
        for name in dict.fromkeys([*first, *found])
    }


def has_backbones(config: Mapping[str, Any]) -> bool:
    """Tell whether a pretrained network is among the architectures of a study."""
    space = config.get("space") or {}
    return any(get_architecture(name).backbone for name in _architectures(space))


def _spaces(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    space = config.get("space") or {}
    if not config.get("stages"):
        return {keys.STAGE_SEARCH: space}
    return dict(zip((keys.STAGE_PROBE, keys.STAGE_TUNE), stage_spaces(space), strict=False))


def _architectures(space: Mapping[str, Any]) -> list[str]:
    """Those of a study that this release has; what another one had besides is not known here."""
    chosen = space.get(ARCHITECTURE, list(ARCHITECTURES))
    names = [str(name) for name in ([chosen] if isinstance(chosen, str) else chosen)]
    return [name for name in names if name in ARCHITECTURES or is_own_name(name)]


def _drawn_from(trials: Sequence[FrozenTrial]) -> Drawn:
    found: dict[tuple[str, str], list[BaseDistribution]] = defaultdict(list)
    for trial in trials:
        stage = str(trial.user_attrs.get(STAGE, keys.STAGE_SEARCH))
        for name, kind in trial.distributions.items():
            known = found[stage, name]
            if kind not in known:
                known.append(kind)
    return found


def _stage(stage: str, space: Mapping[str, Any], drawn: Drawn) -> Iterator[tuple[str, str]]:
    """Yield the names of a stage with what they were searched over."""
    architectures = _architectures(space)
    possible: dict[str, tuple[Any, ...]] = {}  # a parent is declared before what depends on it
    for name, declaration in record_space(architectures).items():
        conditions = [
            (c.parent, [value for value in possible.get(c.parent, ()) if value in c.values])
            for c in declaration.conditions
        ]
        if all(values for _, values in conditions):
            kinds = drawn.get((stage, name)) or [
                distribution_of(declaration, _of_the_file(space.get(name)))
            ]
            possible[name] = tuple(c for kind in kinds for c in getattr(kind, "choices", ()))
            only = [_condition_in_words(parent, values) for parent, values in conditions]
            yield name, ", ".join([_in_words(kinds), *only])
    foreign = tuple(f"{name.rpartition(':')[2]}/" for name in architectures if is_own_name(name))
    of_foreign: dict[str, list[BaseDistribution]] = {
        name: [bounded(bounds, whole=False)]
        for name, value in space.items()
        if name.startswith(foreign) and (bounds := _of_the_file(value)) is not None
    }
    of_foreign |= {name: [*kinds] for (of, name), kinds in drawn.items() if of == stage}
    for name, kinds in of_foreign.items():
        if name not in possible:
            yield name, _in_words(kinds)


def _condition_in_words(parent: str, values: Sequence[Any]) -> str:
    if parent == ARCHITECTURE and all(get_architecture(str(v)).backbone for v in values):
        return "only with a backbone"  # shorter than the names of all that have one
    return f"only if {parent} is {' or '.join(map(str, values))}"


def _of_the_file(value: Any) -> SpaceValue | None:
    """What a stored study file says of a hyperparameter, as it was checked before it ran."""
    if isinstance(value, Mapping):
        return Range.model_validate(dict(value))
    return tuple(value) if isinstance(value, list) else value


def _over_stages(bounds: Mapping[str, str | None]) -> str:
    """Return the bounds of all stages: once where they are the same, else by stage."""
    known = {stage: words for stage, words in bounds.items() if words is not None}
    if len(known) == len(bounds) and len(set(known.values())) == 1:
        return next(iter(known.values()))
    return "; ".join(f"{stage}: {words}" for stage, words in known.items())


def _in_words(kinds: Sequence[BaseDistribution]) -> str:
    return " or ".join(map(bounds_in_words, kinds))


def bounds_in_words(kind: BaseDistribution) -> str:
    """Return what values are drawn from, as people read it.

    >>> bounds_in_words(FloatDistribution(0.0003, 0.003, log=True))
    '0.0003 to 0.003, log scale'
    >>> bounds_in_words(IntDistribution(2, 5)), bounds_in_words(CategoricalDistribution([16, 24]))
    ('2 to 5, integers', '16, 24')
    >>> bounds_in_words(CategoricalDistribution(["none"]))
    'none (pinned)'
    """
    if isinstance(kind, CategoricalDistribution):
        return ", ".join(map(str, kind.choices)) + (" (pinned)" if kind.single() else "")
    if not isinstance(kind, FloatDistribution | IntDistribution):
        return str(kind)
    if kind.low == kind.high:
        return f"{kind.low:g} (pinned)"
    words = f"{kind.low:g} to {kind.high:g}"
    if isinstance(kind, IntDistribution):
        words += ", integers" if kind.step == 1 else f", integers in steps of {kind.step}"
    elif kind.step:
        words += f" in steps of {kind.step:g}"
    return words + (", log scale" if kind.log else "")
