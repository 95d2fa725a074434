"""One timer for all connections of an owner, however many they are."""

import asyncio
from typing import Any

import pytest

from gateway.http1 import connections as module
from gateway.http1.connections import Connections, ServerSettings


class Waiting:
    """A connection that waits for something, for ten seconds."""

    def __init__(self, owner: Connections) -> None:
        self.owner = owner
        self.deadline = 0.0
        self.ended = 0

    def timeout_s(self) -> float:
        return 10.0

    def on_deadline(self) -> None:
        self.ended += 1
        self.owner.open.discard(self)


def opened(count: int) -> tuple[Connections, list[Waiting]]:
    owner: Any = Connections(ServerSettings())
    made = [Waiting(owner) for _ in range(count)]
    owner.open.update(made)
    return owner, made


async def until_swept(owner: Connections) -> None:
    while owner._unswept is not None:
        await asyncio.sleep(0)


async def test_few_are_swept_in_one_go() -> None:
    owner, made = opened(3)
    owner.sweep(100.0)
    assert [each.deadline for each in made] == [110.0] * 3
    owner.sweep(110.0)
    assert [each.ended for each in made] == [1] * 3


async def test_many_are_swept_by_slices_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 2)
    for count in (2, 5, 6):
        owner, made = opened(count)
        owner.sweep(100.0)
        assert sum(each.deadline > 0 for each in made) == 2
        await until_swept(owner)
        assert [each.deadline for each in made] == [110.0] * count
        owner.sweep(110.0)
        await until_swept(owner)
        assert [each.ended for each in made] == [1] * count


async def test_a_sweep_does_not_begin_before_the_last_one_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the connections of the last slices would never be looked at on a busy machine."""
    monkeypatch.setattr(module, "SLICE", 2)
    owner, made = opened(6)
    for now in (100.0, 200.0, 300.0):
        owner.sweep(now)
        await asyncio.sleep(0)
    await until_swept(owner)
    assert all(each.deadline for each in made)


async def test_one_that_closes_during_a_sweep_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 1)
    owner, made = opened(3)
    for each in made:
        each.deadline = 100.0
    owner.sweep(100.0)
    (first,) = (each for each in made if each.ended)
    owner.open.clear()
    await until_swept(owner)
    assert [each.ended for each in made if each is not first] == [0, 0]
