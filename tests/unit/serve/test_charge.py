"""Work on a store that fails midway: it is done again where others share it."""

import asyncio
import time
from typing import Any, cast

import pytest

from gateway.config import Config
from gateway.errors import StoreBusy, StoreError, StoreTaken, StoreUnreachable
from gateway.serve import charge
from gateway.serve.charge import patiently
from gateway.store.api import Store


class Shared:
    """All that patience asks of a store."""

    def __init__(self, *, is_shared: bool) -> None:
        self.is_shared = is_shared


class Failing:
    """Work that fails as it is told to, and then is done."""

    def __init__(self, *errors: StoreError) -> None:
        self.errors = list(errors)
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charge, "AGAIN_S", 0.0)


def store(*, is_shared: bool = True) -> Store:
    return cast(Any, Shared(is_shared=is_shared))


async def test_what_failed_is_done_again() -> None:
    work = Failing(StoreUnreachable("the session was ended"), StoreBusy("a lock"))
    assert await patiently(store(), work) == "done"
    assert work.tries == 3


@pytest.mark.parametrize(
    ("is_shared", "error"),
    [(True, StoreError("no such table")), (True, StoreTaken("by another")), (False, StoreBusy("locked"))],
)
async def test_what_no_waiting_makes_good_is_raised_at_once(is_shared: bool, error: StoreError) -> None:
    work = Failing(error)
    with pytest.raises(type(error)):
        await patiently(store(is_shared=is_shared), work)
    assert work.tries == 1


async def test_it_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    async def away() -> None:
        nonlocal now
        now += 5.0
        raise StoreUnreachable("away")

    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(StoreUnreachable):
        await asyncio.wait_for(patiently(store(), away), None)
    assert now == charge.PATIENCE_S


async def test_a_store_that_opens_while_the_start_is_cancelled_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its threads kept a process alive that was told to stop amid its start."""
    may_open, closed = asyncio.Event(), asyncio.Event()

    class Opened:
        async def close(self) -> None:
            closed.set()

    async def opening(*_: object, **__: object) -> Opened:
        await may_open.wait()
        return Opened()

    monkeypatch.setattr(charge, "open_store", opening)
    start = asyncio.ensure_future(charge.in_charge(Config()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.sleep(0)
    may_open.set()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert closed.is_set()
