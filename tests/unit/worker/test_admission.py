"""The gate of a service: order, limit, queue, pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.service import ConcurrencySettings
from gateway.errors import Paused, PoolFull
from gateway.worker.admission import HOLD_S, Gate


class Guest:
    """Counts how often it was let in."""

    def __init__(self, order: list["Guest"]) -> None:
        self.order = order

    def on_admitted(self, gate: Gate) -> None:
        self.order.append(self)


def test_limit_is_kept_and_the_queue_is_served_in_order() -> None:
    gate, order = Gate(), []
    gate.configure(ConcurrencySettings(limit=1, queue=2, queue_timeout=500), paused=False)
    guests = [Guest(order) for _ in range(4)]
    assert gate.enter(guests[0])
    assert not gate.enter(guests[1])
    assert not gate.enter(guests[2])
    with pytest.raises(PoolFull):
        gate.enter(guests[3])
    assert gate.wait_s() == 0.5
    gate.leave()
    assert order == [guests[1]]
    gate.leave()
    assert order == guests[1:3]


def test_paused_gate_holds_and_opens_in_order() -> None:
    gate, order = Gate(), []
    gate.configure(None, paused=True)
    guests = [Guest(order) for _ in range(3)]
    assert not any(gate.enter(each) for each in guests)
    assert gate.wait_s() == HOLD_S
    assert isinstance(gate.refusal(), Paused)
    gate.give_up(guests[1])
    gate.configure(None, paused=False)
    assert order == [guests[0], guests[2]]


@given(st.integers(1, 4), st.integers(0, 4), st.lists(st.sampled_from(["enter", "leave"]), max_size=60))
def test_never_more_run_than_the_limit_and_nobody_is_lost(limit: int, queue: int, steps: list[str]) -> None:
    gate, order = Gate(), []
    gate.configure(ConcurrencySettings(limit=limit, queue=queue), paused=False)
    running = waiting = 0
    for step in steps:
        if step == "leave":
            if running:
                gate.leave()
                running += -1 if len(order) == 0 else 0
                waiting -= len(order)
                order.clear()
            continue
        try:
            if gate.enter(Guest(order)):
                running += 1
            else:
                waiting += 1
        except PoolFull:
            assert waiting == queue
        assert running <= limit
        assert waiting <= queue
        assert running == limit or not waiting
