"""Many rollouts at once: they share transactions, and none waits for all the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.control.rollouts import loop as module
from tests.unit.control.console import Console, console

SERVICES = ("auth", "cart", "shop")


@asynccontextmanager
async def many(path: Path) -> AsyncIterator[Console]:
    """Open a console with several services of two versions."""
    async with console(path) as made:
        for name in SERVICES:
            for version in ("v1", "v2"):
                await made.pass_probe((await made.register(version, service=name)).id)
        yield made


async def start_all(made: Console) -> list[str]:
    """Start a rollout of each service; return their ids."""
    return [(await made.start(serviceName=name)).id for name in SERVICES]


async def is_rolling(made: Console, deployment: str) -> bool:
    return (await made.actions.deployments.get(deployment)).status == "rolling"


class Transactions:
    """Counts those that are opened from now on."""

    def __init__(self, made: Console, patch: pytest.MonkeyPatch) -> None:
        self.opened = 0
        opens = made.store.transaction

        def counted(*, urgent: bool = False) -> object:
            self.opened += 1
            return opens(urgent=urgent)

        patch.setattr(made.store, "transaction", counted)


async def test_they_tick_by_batches_and_none_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    async with many(tmp_path) as made:
        ids = await start_all(made)
        await made.settle()
        await made.rollouts.tick()
        before = [(await made.actions.deployments.get(each)).updated_at for each in ids]
        transactions = Transactions(made, monkeypatch)
        await made.rollouts.tick()
        assert transactions.opened == 2
        after = [(await made.actions.deployments.get(each)).updated_at for each in ids]
        assert all(was < now for was, now in zip(before, after, strict=True))


async def test_facts_that_come_together_are_committed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_all = asyncio.Event()

    async def applied(number: int, timeout_s: float) -> list[int]:
        await have_all.wait()
        return []

    async with many(tmp_path) as made:
        monkeypatch.setattr(made.links, "applied", applied)
        ids = await start_all(made)
        while not all([await is_rolling(made, each) for each in ids]):
            await made.settle_once()
        transactions = Transactions(made, monkeypatch)
        have_all.set()
        await made.settle()
        states = [made.rollouts.state_of(each) for each in ids]
        assert all(state is not None and state.applied for state in states)
        assert transactions.opened == 1
