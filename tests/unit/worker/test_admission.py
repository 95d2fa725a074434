"""The admission of a service: order, limit, queue, pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing.service import ConcurrencySettings
from gateway.errors import Paused, PoolFull
from gateway.worker.admission import HOLD_S, Admission


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
