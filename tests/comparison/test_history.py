"""Who is champion, and what is written down of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from breakhis_search.comparison import history, registry_lock
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


def let_time_pass(registry: Any) -> None:
    """Make every lock in the store older than a lock may become."""
    store = sa.create_engine(registry.tracking_uri)
    with store.begin() as connection:
        connection.execute(
            sa.text("UPDATE registered_models SET creation_time = creation_time - :ms"),
            {"ms": 2000 * registry_lock.LASTS_S},
        )
    store.dispose()


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


def test_of_many_promotions_at_once_each_is_done_or_told(registry) -> None:
    """Eight at once: whoever wins, alias and history agree, and nobody is lost silently."""
    move(registry, "1", None)
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def promote(number: int) -> None:
        version = "2" if number % 2 else "3"
        start.wait()
        try:
            move(registry, version, "1")
            outcomes.append(version)
        except RegistryError:
            outcomes.append("told")

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [outcome for outcome in outcomes if outcome != "told"]
    assert len(outcomes) == 8
    assert len(done) <= 1
    versions = [change.version for change in read_history(registry, NAME)]
    assert versions == ["1", *done]
    assert champion(registry) == versions[-1]


def test_lock_left_by_a_crash_does_not_stop_promotions_for_ever(registry) -> None:
    registry.create_registered_model(f"{NAME}{registry_lock.SUFFIX}crashed")
    with pytest.raises(RegistryError, match="another process is moving the champion"):
        move(registry, "1", None)
    let_time_pass(registry)
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


def test_who_was_taken_for_dead_moves_nothing(registry, monkeypatch) -> None:
    """The first is away between looking and writing; meanwhile a second takes over and is done."""
    move(registry, "1", None)
    look = history.champion_of

    def look_slowly(client: Any, name: str) -> Any:
        found = look(client, name)
        monkeypatch.setattr(history, "champion_of", look)
        let_time_pass(registry)
        move(registry, "3", "1")
        return found

    monkeypatch.setattr(history, "champion_of", look_slowly)
    with pytest.raises(RegistryError, match="another process took over.*moved nothing"):
        move(registry, "2", "1")
    assert champion(registry) == "3"
    assert [change.version for change in read_history(registry, NAME)] == ["1", "3"]


class CrashError(Exception):
    """A process that ends at this moment."""


@pytest.mark.parametrize(
    ("call", "on_which", "champion_then"),
    [
        ("set_registered_model_alias", 1, "1"),  # written down, not moved
        ("set_registered_model_tag", 2, "2"),  # moved, not yet marked as moved
    ],
)
def test_crash_between_record_and_alias_leaves_both_in_agreement(
    registry, monkeypatch, call: str, on_which: int, champion_then: str
) -> None:
    move(registry, "1", None)
    real, calls = getattr(registry, call), []

    def crash(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == on_which:
            raise CrashError
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(registry, call, crash)
        with pytest.raises(CrashError):
            move(registry, "2", "1")
    versions = ["1", "2"] if champion_then == "2" else ["1"]
    assert champion(registry) == champion_then
    assert [change.version for change in read_history(registry, NAME)] == versions

    move(registry, "3", champion_then)
    assert [change.version for change in read_history(registry, NAME)] == [*versions, "3"]
    assert not [v for v in registry.get_registered_model(NAME).tags.values() if "pending" in v]
    assert previous_champion(registry, NAME) == champion_then
