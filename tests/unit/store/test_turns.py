"""Who writes next, and what is finished whoever gives up."""

import asyncio
import gc

import pytest

from gateway.errors import StoreBusy
from gateway.store import turns
from gateway.store.turns import Turns, to_the_end


async def test_what_fails_after_its_waiter_was_cancelled_complains_to_nobody() -> None:
    """A control that was fenced ended with a traceback of a task that nobody had asked."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    begun = asyncio.Event()

    async def fails() -> None:
        begun.set()
        await asyncio.sleep(0.01)
        raise StoreBusy("too late")

    waiting = asyncio.ensure_future(to_the_end(fails()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del waiting
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_a_turn_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "QUEUE_S", 0.01)
    order = Turns("here")
    async with order.next():
        with pytest.raises(StoreBusy, match="here: the changes before this one take too long"):
            async with order.next():
                pass
    async with order.next():
        pass


async def test_what_is_urgent_goes_before_all_but_the_first_who_wait() -> None:
    """Guards: a rollback waited for every change that had been sent before it."""
    order, went = Turns("here"), list[str]()

    async def go(name: str, *, urgent: bool = False) -> None:
        async with order.next(urgent=urgent):
            went.append(name)

    async with asyncio.TaskGroup() as group, order.next():
        for number in range(5):
            group.create_task(go(f"change {number}"))
        await asyncio.sleep(0)
        group.create_task(go("rollback", urgent=True))
        await asyncio.sleep(0)
    assert went == ["change 0", "rollback", "change 1", "change 2", "change 3", "change 4"]


async def test_what_is_urgent_waits_also_where_too_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 0)
    order = Turns("here")
    async with order.next(urgent=True):
        with pytest.raises(StoreBusy, match="changes wait already"):
            async with order.next():
                pass
