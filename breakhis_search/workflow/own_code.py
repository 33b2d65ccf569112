"""What a study names of the user's own code: tried before anything is trained, and remembered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from breakhis_search.config import StudyConfig
from breakhis_search.data.draws import STRATEGY, check_draw
from breakhis_search.data.taxonomy import class_names
from breakhis_search.evaluation.own_metrics import check_metric
from breakhis_search.own_code import is_own_name, source_digest
from breakhis_search.workflow.request import architectures_of


def check_own_code(config: StudyConfig) -> None:
    """Import and try the sampling strategies and metrics of the user's own.

    An architecture is not tried: importing it would import Keras, and its first trial builds it.

    Raises:
        ConfigError: One cannot be used.
    """
    for strategy in _strategies(config):
        check_draw(strategy, config.task)
    for metric in config.metrics:
        check_metric(metric, class_names(config.task))


def code_digests(config: StudyConfig, folder: Path) -> dict[str, str]:
    """Return the sha256 of the code in a folder that decides what a score means, by name.

    It is a part of the study's identity. Metrics are left out: they say more of a trial and change
    nothing about it.
    """
    names = [*filter(is_own_name, architectures_of(config)), *_strategies(config)]
    digests = {name: source_digest(name, folder) for name in names}
    return {name: digest for name, digest in digests.items() if digest is not None}


def _strategies(config: StudyConfig) -> Iterator[str]:
    chosen = config.space.get(STRATEGY, ())
    for name in chosen if isinstance(chosen, tuple) else (chosen,):
        if is_own_name(str(name)):
            yield str(name)
