"""Who leaves when the admin listener is full: never who comes, never who is being answered."""

import asyncio
from collections.abc import Callable

from gateway.admin.eviction import Eviction


class Fake:
    """A connection from an address."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_open = True
        self.on_lost: Callable[[], None] = lambda: None

    def abort(self) -> None:
        self.is_open = False
        self.on_lost()


async def come(eviction: Eviction, *peers: str) -> list[Fake]:
    made = [Fake(peer) for peer in peers]
    for each in made:
        eviction.enter(each)
        await asyncio.sleep(0)
    return made


async def test_the_oldest_of_the_newcomers_address_leaves_first() -> None:
    eviction = Eviction(3)
    here = await come(eviction, "a", "b", "b", "b")
    assert [each.is_open for each in here] == [True, False, True, True]
    here += await come(eviction, "c")
    assert [each.is_open for each in here] == [False, False, True, True, True]
    assert (len(eviction), eviction.ended) == (3, 2)


async def test_a_call_that_is_being_answered_is_not_cut() -> None:
    eviction = Eviction(2)
    busy, idle = await come(eviction, "a", "a")
    with eviction.hold(busy):
        (new,) = await come(eviction, "a")
        assert [each.is_open for each in (busy, idle, new)] == [True, False, True]
    await come(eviction, "a")
    assert not busy.is_open


async def test_a_newcomer_is_let_in_even_if_nobody_can_leave() -> None:
    eviction = Eviction(1)
    (busy,) = await come(eviction, "a")
    with eviction.hold(busy), eviction.hold(None):
        (new,) = await come(eviction, "a")
        assert busy.is_open and new.is_open


async def test_who_leaves_by_itself_makes_room() -> None:
    eviction = Eviction(1)
    (first,) = await come(eviction, "a")
    first.on_lost()
    (second,) = await come(eviction, "a")
    assert second.is_open and first.is_open
    assert len(eviction) == 1
