"""Who works on what: leases in the database of the studies.

A lease is a row with the name of a piece of work (a trial, a finalist, the lead of a study) and of
the process that does it. Whoever wants to do it takes the lease in one statement, so that of two
processes only one gets it, on one machine as on many. Work whose process is gone can be taken over:
at once where its end can be seen from here, else when its lease was not renewed for
:data:`EXPIRES_S`. Time is that of the database, whatever the clocks of the machines say.

Every taking is counted (:meth:`Leases.turn_of`): what a process did not record before another one
took over must not be recorded afterwards, and the higher turn tells who came later.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from breakhis_search.errors import BreakhisSearchError, StudyError
from breakhis_search.study.process_mark import is_gone, is_here, own_mark
from breakhis_search.study.storage import connection_arguments

RENEW_S = 20.0
EXPIRES_S = 120.0
"""After so many seconds without a renewal a process on another host is taken for dead. Six are
missed by then: a network may be away for a minute."""

_PATIENCE_S = 60.0
_PATIENCE_WITH_OTHERS_S = EXPIRES_S + 60.0
"""How long to wait for a block that another process is in: one on a machine that is lost holds it
until its lease has run out."""

_TABLE = sa.Table(
    "breakhis_turns",
    sa.MetaData(),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("holder", sa.String(32), nullable=False),  # empty: nobody
    sa.Column("host", sa.String(300), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("started", sa.String(32), nullable=False),
    sa.Column("renewed_at", sa.Float(53), nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
)
_NOW = {"postgresql": "extract(epoch from clock_timestamp())", "mysql": "unix_timestamp(now(6))"}
_NOW_SQLITE = "(julianday('now') - 2440587.5) * 86400.0"


def _clock() -> float:
    """Seconds that also go by while the machine sleeps, where it can tell them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def lead_of(study_uid: str) -> str:
    """Return the name of the lease on leading a study to its end."""
    return f"{study_uid}/lead"


def finalist_of(study_uid: str, number: int) -> str:
    """Return the name of the lease on training a finalist."""
    return f"{study_uid}/finalist/{number}"


class LeaseLostError(BreakhisSearchError):
    """Another process took over what this one was at, because it seemed to be gone."""


class Leases:
    """The leases of this process, and a look at those of others.

    Args:
        uri: Of the studies' database, as for Optuna.
    """

    def __init__(self, uri: str) -> None:
        # A transaction of ours is one statement or two: a minute is far more than enough.
        waits = {"timeout": _PATIENCE_S} if uri.startswith("sqlite") else connection_arguments(uri)
        # One connection for both threads: a server has so many, and many workers share them.
        self._engine = sa.create_engine(
            uri, connect_args=waits, pool_pre_ping=True, pool_size=1, max_overflow=0
        )
        self._now: sa.ColumnElement[float] = sa.literal_column(
            _NOW.get(self._engine.dialect.name, _NOW_SQLITE)
        )
        self._holder = uuid.uuid4().hex
        self._mark = own_mark()
        self._held: set[str] = set()
        self._turns: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._renewer: threading.Thread | None = None
        self._renewed_at = _clock()
        self._create_table()

    def _create_table(self) -> None:
        for attempt in range(3):  # two processes that start at once
            try:
                _TABLE.metadata.create_all(self._engine)
            except SQLAlchemyError:
                if attempt == 2:
                    raise
                time.sleep(0.2)
            else:
                return

    def take(self, name: str) -> bool:
        """Take a lease that nobody living holds; tell whether it is this process's now.

        Args:
            name: Of the work, at most 200 characters.
        """
        try:
            with self._engine.begin() as connection:
                turn = self._take(connection, name)
        except IntegrityError:  # another one has just inserted it
            return False
        if turn:
            self._keep(name, turn)
        return turn > 0

    def _take(self, connection: sa.Connection, name: str) -> int:
        """Return the turn that this process has with it now; 0 where another one holds it."""
        row, now = self._read(connection, name)
        if row is None:
            values = {"name": name, "holder": self._holder, **self._mark, "renewed_at": self._now}
            connection.execute(sa.insert(_TABLE).values({**values, "turn": 1}))
            return 1
        turn = int(row["turn"])
        if row["holder"] == self._holder:
            return turn
        return turn + 1 if self._is_free(row, now) and self._replace(connection, row) else 0

    def _read(self, connection: sa.Connection, name: str) -> tuple[Mapping[str, Any] | None, float]:
        columns = (*_TABLE.c, self._now.label("now"))
        found = connection.execute(sa.select(*columns).where(_TABLE.c.name == name)).mappings()
        row = found.one_or_none()
        return (None, 0.0) if row is None else (dict(row), float(row["now"]))

    def _replace(self, connection: sa.Connection, row: Mapping[str, Any]) -> bool:
        """Take a lease if it still is as it was read."""
        unchanged = sa.and_(
            _TABLE.c.name == row["name"],
            _TABLE.c.holder == row["holder"],
            _TABLE.c.renewed_at == row["renewed_at"],
        )
        values = {"holder": self._holder, **self._mark, "renewed_at": self._now}
        values["turn"] = int(row["turn"]) + 1
        return connection.execute(sa.update(_TABLE).where(unchanged).values(values)).rowcount == 1

    @staticmethod
    def _is_free(row: Mapping[str, Any], now: float) -> bool:
        if not row["holder"]:
            return True
        # What still runs here is alive, however busy the database was.
        return is_gone(row) if is_here(row) else now - float(row["renewed_at"]) > EXPIRES_S

    def release(self, name: str) -> None:
        """Give a lease back; nothing happens where this process does not hold it."""
        with self._lock:
            self._held.discard(name)
        mine = sa.and_(_TABLE.c.name == name, _TABLE.c.holder == self._holder)
        with self._engine.begin() as connection:
            connection.execute(sa.update(_TABLE).where(mine).values(holder=""))

    def forget(self, name: str) -> None:
        """Delete a lease of this process: the work is done for good."""
        with self._lock:
            self._held.discard(name)
        mine = sa.and_(_TABLE.c.name == name, _TABLE.c.holder == self._holder)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_TABLE).where(mine))

    def holds(self, name: str) -> bool:
        """Tell whether this process holds a lease, as far as the last renewal showed."""
        with self._lock:
            return name in self._held

    def turn_of(self, name: str) -> int:
        """Return how many processes, one after the other, took a lease that this one took last."""
        with self._lock:
            return self._turns[name]

    def require(self, name: str) -> None:
        """Make sure that this process still holds a lease.

        Where the last renewal is too long ago, for a network or a machine that slept, it is asked.

        Raises:
            LeaseLostError: Another one took it.
            SQLAlchemyError: The database does not answer.
        """
        if _clock() - self._renewed_at > 2 * RENEW_S:
            self.renew()
        if not self.holds(name):
            raise LeaseLostError(
                "another process took this work over: this one was not heard of for"
                f" {EXPIRES_S:.0f} s"
            )

    def living(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that a living process holds."""
        wanted = set(names)
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*_TABLE.c, self._now.label("now"))).mappings()
            return {
                str(row["name"])
                for row in rows
                if row["name"] in wanted and not self._is_free(dict(row), float(row["now"]))
            }

    @contextmanager
    def exclusively(self, name: str, *, patience_s: float | None = None) -> Iterator[None]:
        """Let one process after the other through the block.

        Args:
            name: Of the block.
            patience_s: How long to wait for another process that is in it; by default a minute
                longer than a lease lives whose machine is lost.

        Raises:
            StudyError: Another living process has been in it for as long.
        """
        patience_s = _PATIENCE_WITH_OTHERS_S if patience_s is None else patience_s
        until = time.monotonic() + patience_s
        wait_s = 0.005
        while not self.take(name):
            if time.monotonic() > until:
                raise StudyError(
                    f"another process has held {name} for {patience_s:.0f} s",
                    remedy="see with `status` what runs; end what hangs, then run again",
                )
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, 0.2)
        try:
            yield
        finally:
            self.release(name)

    def renew(self) -> None:
        """Tell the database that this process lives; notice what was taken away meanwhile."""
        mine, began = _TABLE.c.holder == self._holder, _clock()
        with self._engine.begin() as connection:
            connection.execute(sa.update(_TABLE).where(mine).values(renewed_at=self._now))
            still = set(connection.execute(sa.select(_TABLE.c.name).where(mine)).scalars())
        with self._lock:
            self._held &= still
            self._renewed_at = began

    def _keep(self, name: str, turn: int) -> None:
        with self._lock:
            if not self._held:  # nothing was renewed while nothing was held
                self._renewed_at = _clock()
            self._held.add(name)
            self._turns[name] = turn
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew_for_ever, daemon=True)
                self._renewer.start()

    def _renew_for_ever(self) -> None:
        while not self._closing.wait(RENEW_S):
            with suppress(SQLAlchemyError):  # away for a while: the next one may come in time
                self.renew()

    def close(self) -> None:
        """Give everything back."""
        self._closing.set()
        mine = _TABLE.c.holder == self._holder
        with suppress(SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(sa.update(_TABLE).where(mine).values(holder=""))
        with self._lock:
            self._held.clear()
        self._engine.dispose()
