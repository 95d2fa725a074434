"""The admission of a service: order, limit, queue, pause."""

import asyncio
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.service import ConcurrencySettings
from gateway.errors import Paused, PoolFull
from gateway.worker.admission import HOLD_S, WOKEN_AT_ONCE, Admission


class Request:
    """Counts how often it was let in."""

    def __init__(self, order: list["Request"]) -> None:
        self.order = order

    def on_admitted(self, admission: Admission) -> None:
        self.order.append(self)


def test_limit_is_kept_and_the_queue_is_served_in_order() -> None:
    admission, order = Admission(), []
    admission.configure(ConcurrencySettings(limit=1, queue=2, queue_timeout=500), paused=False)
    requests = [Request(order) for _ in range(4)]
    assert admission.enter(requests[0])
    assert not admission.enter(requests[1])
    assert not admission.enter(requests[2])
    with pytest.raises(PoolFull):
        admission.enter(requests[3])
    assert admission.wait_s() == 0.5
    admission.leave()
    assert order == [requests[1]]
    admission.leave()
    assert order == requests[1:3]


def test_paused_gate_holds_and_opens_in_order() -> None:
    admission, order = Admission(), []
    admission.configure(None, paused=True)
    requests = [Request(order) for _ in range(3)]
    assert not any(admission.enter(each) for each in requests)
    assert admission.wait_s() == HOLD_S
    assert isinstance(admission.refusal(), Paused)
    admission.give_up(requests[1])
    admission.configure(None, paused=False)
    admission.wake()
    assert order == [requests[0], requests[2]]


@given(st.integers(1, 4), st.integers(0, 4), st.lists(st.sampled_from(["enter", "leave"]), max_size=60))
def test_never_more_run_than_the_limit_and_nobody_is_lost(limit: int, queue: int, steps: list[str]) -> None:
    admission, order = Admission(), []
    admission.configure(ConcurrencySettings(limit=limit, queue=queue), paused=False)
    running = waiting = 0
    for step in steps:
        if step == "leave":
            if running:
                admission.leave()
                running += -1 if len(order) == 0 else 0
                waiting -= len(order)
                order.clear()
            continue
        try:
            if admission.enter(Request(order)):
                running += 1
            else:
                waiting += 1
        except PoolFull:
            assert waiting == queue
        assert running <= limit
        assert waiting <= queue
        assert running == limit or not waiting


class Refused:
    """A held request that is refused as it is let in: it leaves at once."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.times = 0

    def on_admitted(self, admission: Admission) -> None:
        self.times += 1
        assert admission is self.admission
        admission.leave()


async def drained(admission: Admission) -> None:
    async with asyncio.timeout(20):
        while not admission.is_empty:
            await asyncio.sleep(0)


async def test_requests_refused_as_they_are_woken_are_woken_by_a_loop() -> None:
    """Guards 400 held requests that were all lost: each woke the next from within, and so did the next."""
    admission = Admission()
    admission.configure(None, paused=True)
    held = [Refused(admission) for _ in range(5_000)]
    assert not any(admission.enter(each) for each in held)
    admission.configure(None, paused=False)
    admission.wake()
    await drained(admission)
    assert [each.times for each in held] == [1] * 5_000


async def test_queue_behind_a_limit_is_woken_by_a_loop() -> None:
    admission = Admission()
    admission.configure(ConcurrencySettings(limit=1, queue=5_000), paused=False)
    first, held = Request([]), [Refused(admission) for _ in range(5_000)]
    assert admission.enter(first)
    assert not any(admission.enter(each) for each in held)
    admission.leave()
    await drained(admission)
    assert [each.times for each in held] == [1] * 5_000


async def test_some_are_woken_and_then_the_loop_has_its_turn() -> None:
    """Guards the other clients: ten thousand requests let in at once held everything up."""
    admission, order = Admission(), []
    admission.configure(None, paused=True)
    held = [Request(order) for _ in range(WOKEN_AT_ONCE * 3)]
    for each in held:
        admission.enter(each)
    admission.configure(None, paused=False)
    admission.wake()
    assert len(order) == WOKEN_AT_ONCE
    late = Request(order)
    assert not admission.enter(late), "nobody overtakes those who wait"
    while len(order) <= len(held):
        await asyncio.sleep(0)
    assert order == [*held, late]


async def test_paused_again_while_being_woken_holds_the_rest() -> None:
    admission, order = Admission(), []
    admission.configure(None, paused=True)
    for _ in range(WOKEN_AT_ONCE * 2):
        admission.enter(Request(order))
    admission.configure(None, paused=False)
    admission.wake()
    admission.configure(None, paused=True)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(order) == WOKEN_AT_ONCE


def test_giving_up_does_not_look_at_all_who_wait() -> None:
    """Guards a worker that stood still: 500 time-outs among 10,000 held requests took it 0.6 s."""
    admission = Admission()
    admission.configure(None, paused=True)
    held = [Request([]) for _ in range(1_000)]
    for each in held:
        admission.enter(each)
    lines = 0

    def count(frame: object, event: str, argument: object) -> object:
        nonlocal lines
        lines += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        for each in held[::2]:
            admission.give_up(each)
    finally:
        sys.settrace(before)
    assert lines <= 20 * 500
