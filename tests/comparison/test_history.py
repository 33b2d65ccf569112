"""Who is champion, and what is written down of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from breakhis_search.comparison import history
from breakhis_search.comparison.history import (
    champion_of,
    change_champion,
    previous_champion,
    read_history,
)
from breakhis_search.errors import RegistryError

NAME = "breakhis-binary"


def move(registry: Any, version: str, instead_of: str | None, action: Any = "promoted") -> None:
    change_champion(registry, NAME, version, instead_of=instead_of, action=action, why="a test")


def champion(registry: Any) -> str:
    return str(champion_of(registry, NAME).version)


def test_first_champion_is_written_down_with_its_scores(registry) -> None:
    change_champion(
        registry,
        NAME,
        "1",
        instead_of=None,
        action="registered",
        why="there was none",
        scores={"image/auroc": 0.9},
    )
    [change] = read_history(registry, NAME)
    assert champion(registry) == "1"
    assert (change.version, change.previous, change.action) == ("1", None, "registered")
    assert change.scores == {"image/auroc": 0.9}
    assert change.when.endswith("+00:00")


def test_history_of_an_unknown_model_is_empty(client) -> None:
    assert read_history(client, "nobody") == []


def test_promotion_against_a_champion_that_changed_is_refused(registry) -> None:
    move(registry, "1", None)
    move(registry, "2", "1")
    with pytest.raises(
        RegistryError, match="changed while.*expected version 1.*received version 2"
    ):
        move(registry, "3", "1")
    assert champion(registry) == "2"
    assert len(read_history(registry, NAME)) == 2


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(registry) -> None:
    move(registry, "1", None)
    told: list[str] = []
    start = threading.Barrier(2)

    def promote(version: str) -> None:
        start.wait()
        try:
            move(registry, version, "1")
        except RegistryError as error:
            told.append(str(error))

    threads = [threading.Thread(target=promote, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert "champion of breakhis-binary" in told[0]
    assert champion(registry) in ("2", "3")
    assert len(read_history(registry, NAME)) == 2


def test_lock_left_by_a_crash_does_not_stop_promotions_for_ever(registry, monkeypatch) -> None:
    registry.create_registered_model(f"{NAME}.being-promoted")
    with pytest.raises(RegistryError, match="another process is moving the champion"):
        move(registry, "1", None)
    monkeypatch.setattr(history, "_LOCK_LASTS_S", -1)
    move(registry, "1", None)
    assert champion(registry) == "1"
    names = [model.name for model in registry.search_registered_models()]
    assert names == [NAME]


def test_rolling_back_twice_goes_two_champions_back(registry) -> None:
    move(registry, "1", None)
    move(registry, "2", "1")
    move(registry, "3", "2")
    for present, expected in (("3", "2"), ("2", "1")):
        version = previous_champion(registry, NAME)
        assert version == expected
        move(registry, version, present, "rolled back")
    with pytest.raises(RegistryError, match="version 1 is the first champion"):
        previous_champion(registry, NAME)


def test_rollback_without_a_champion_is_refused(registry) -> None:
    with pytest.raises(RegistryError, match="no champion to roll back"):
        previous_champion(registry, NAME)


def test_rollback_after_a_hand_moved_the_alias_is_refused(registry) -> None:
    move(registry, "1", None)
    move(registry, "2", "1")
    registry.set_registered_model_alias(NAME, "champion", "3")
    with pytest.raises(RegistryError, match="moved outside this program.*received version 3"):
        previous_champion(registry, NAME)
