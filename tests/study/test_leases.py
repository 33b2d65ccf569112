"""Leases: of two that want the same work one gets it, and what is dead can be taken over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from breakhis_search.errors import StudyError
from breakhis_search.study import leases as module
from breakhis_search.study.leases import EXPIRES_S, LeaseLostError, Leases
from tests.postgres_home import local_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with local_postgres() as server:
        yield server.uri


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'studies.db'}"
        return
    yield request.getfixturevalue("postgres")
    engine = sa.create_engine(request.getfixturevalue("postgres"))
    module._TABLE.drop(engine)
    engine.dispose()


@pytest.fixture
def pair(uri: str) -> Iterator[tuple[Leases, Leases]]:
    with closing(Leases(uri)) as ours, closing(Leases(uri)) as theirs:
        yield ours, theirs


def change(uri: str, **values: object) -> None:
    """Make every lease one of another host, or an older one."""
    engine = sa.create_engine(uri)
    with engine.begin() as connection:
        connection.execute(sa.update(module._TABLE).values(**values))
    engine.dispose()


def test_who_slept_too_long_learns_that_another_one_has_its_work(pair, uri, monkeypatch):
    ours, theirs = pair
    assert ours.take("work")
    change(uri, host="elsewhere", renewed_at=0.0)
    assert theirs.take("work")
    ours.require("work")  # as far as it knows
    monkeypatch.setattr(module, "RENEW_S", -1.0)  # the last renewal was long ago
    with pytest.raises(LeaseLostError):
        ours.require("work")
    theirs.require("work")


def test_a_lease_has_one_holder_until_it_is_released(pair):
    ours, theirs = pair
    assert ours.take("work")
    assert ours.take("work"), "it is held already"
    assert not theirs.take("work")
    assert theirs.living(["work", "other"]) == {"work"}
    ours.release("work")
    assert theirs.living(["work"]) == set()
    assert theirs.take("work")
    assert not ours.take("work")


def test_releasing_what_another_one_holds_changes_nothing(pair):
    ours, theirs = pair
    assert ours.take("work")
    theirs.release("work")
    theirs.forget("work")
    assert theirs.living(["work"]) == {"work"}


def test_of_many_that_want_it_at_once_one_gets_it(uri):
    with ExitStack() as stack:
        all_ = [stack.enter_context(closing(Leases(uri))) for _ in range(6)]
        for round_ in range(5):
            won: list[int] = []
            start = threading.Barrier(len(all_))

            def want(number: int, won: list[int] = won, start=start, name=f"w{round_}") -> None:
                start.wait()
                if all_[number].take(name):
                    won.append(number)

            threads = [threading.Thread(target=want, args=(n,)) for n in range(len(all_))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1


def test_what_a_dead_process_held_is_free_at_once(uri):
    code = f"from breakhis_search.study.leases import Leases; Leases({uri!r}).take('work')"
    subprocess.run([sys.executable, "-c", code + "; import os; os._exit(9)"], check=False)
    with closing(Leases(uri)) as ours:
        assert ours.living(["work"]) == set()
        assert ours.take("work")


def test_another_host_is_alive_while_it_renews_and_dead_when_it_stops(pair, uri):
    ours, theirs = pair
    assert theirs.take("work")
    change(uri, host="elsewhere")
    assert not ours.take("work"), "it was renewed just now"
    change(uri, renewed_at=module._TABLE.c.renewed_at - EXPIRES_S - 1)
    assert ours.living(["work"]) == set()
    assert ours.take("work")
    theirs.renew()
    assert not theirs.holds("work"), "it learns that it was taken for dead"
    with pytest.raises(LeaseLostError, match="another process took this work over"):
        theirs.require("work")


def test_a_living_process_of_this_host_keeps_what_it_could_not_renew(pair, uri):
    ours, theirs = pair
    assert theirs.take("work")
    change(uri, renewed_at=0.0)
    assert not ours.take("work"), "it can be seen to be alive"


def test_one_goes_after_the_other_through_an_exclusive_block(pair):
    inside: list[str] = []

    def go(leases: Leases) -> None:
        for _ in range(10):
            with leases.exclusively("ask"):
                inside.append("in")
                assert inside.count("in") - inside.count("out") == 1
                inside.append("out")

    threads = [threading.Thread(target=go, args=(leases,)) for leases in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inside) == 40
    assert inside == ["in", "out"] * 20


def test_who_hangs_in_an_exclusive_block_is_named(pair, monkeypatch):
    ours, theirs = pair
    monkeypatch.setattr(module, "_PATIENCE_WITH_OTHERS_S", 0.05)
    assert theirs.take("ask")
    with pytest.raises(StudyError, match="another process has held ask"), ours.exclusively("ask"):
        pytest.fail("both were inside")
    assert theirs.holds("ask")


def test_a_block_that_a_lost_machine_is_in_is_entered_when_its_lease_has_run_out(pair, uri):
    assert module._PATIENCE_WITH_OTHERS_S > module.EXPIRES_S
    ours, theirs = pair
    assert theirs.take("ask")
    runs_out_in_a_second = module._TABLE.c.renewed_at - module.EXPIRES_S + 1
    change(uri, host="elsewhere", renewed_at=runs_out_in_a_second)
    with ours.exclusively("ask"):
        assert not theirs.take("ask")


def test_whoever_takes_a_lease_later_has_a_higher_turn(pair):
    ours, theirs = pair
    assert theirs.take("work")
    assert theirs.take("work"), "again, by the same"
    assert theirs.turn_of("work") == 1
    theirs.release("work")
    assert ours.take("work")
    assert ours.turn_of("work") == 2
    ours.release("work")
    assert theirs.take("work")
    assert theirs.turn_of("work") == 3


def test_closing_gives_everything_back(uri):
    with closing(Leases(uri)) as ours:
        with closing(Leases(uri)) as theirs:
            assert theirs.take("a")
            assert theirs.take("b")
        assert ours.living(["a", "b"]) == set()
