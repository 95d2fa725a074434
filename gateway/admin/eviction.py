"""Who has to leave when the admin listener is full: never who comes, for that may be the operator.

An attacker and an operator may share an address, so nobody is refused by it. What ends instead is the
connection nobody would miss: idle, or without a whole request, or without a valid token; the newcomer's own
address first, and the oldest of those.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Connection(Protocol):
    """What is asked of a connection."""

    peer: str
    on_lost: Callable[[], None]

    def abort(self) -> None: ...


class _Place:
    """One connection's. busy: how many authenticated requests of it are being answered."""

    __slots__ = ("busy",)

    def __init__(self) -> None:
        self.busy = 0


class Eviction:
    """Keeps room for whoever comes next."""

    def __init__(self, limit: int) -> None:
        """limit: connections, from which on each newcomer ends another."""
        self.ended = 0
        """Connections that had to make room."""
        self._limit = limit
        self._places: dict[Connection, _Place] = {}
        """The oldest first."""

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, connection: Connection) -> None:
        """Take a new connection in. Its address is known one round of the loop later, and it counts then."""
        asyncio.get_running_loop().call_soon(self._enter, connection)

    def _enter(self, connection: Connection) -> None:
        leave = connection.on_lost

        def left() -> None:
            self._places.pop(connection, None)
            leave()

        connection.on_lost = left
        self._places[connection] = _Place()
        if len(self._places) > self._limit:
            self._make_room(connection)

    def _make_room(self, newcomer: Connection) -> None:
        dispensable = [
            each for each, place in self._places.items() if not place.busy and each is not newcomer
        ]
        near = (each for each in dispensable if each.peer == newcomer.peer)
        chosen = next(near, None) or next(iter(dispensable), None)
        if chosen is not None:
            self.ended += 1
            self._places.pop(chosen)
            chosen.abort()

    @contextmanager
    def hold(self, connection: Connection | None) -> Iterator[None]:
        """Keep a connection from being ended: its request is authenticated and being answered."""
        place = self._places.get(connection) if connection is not None else None
        if place is None:
            yield
            return
        place.busy += 1
        try:
            yield
        finally:
            place.busy -= 1
