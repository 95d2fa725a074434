"""The control process' life cycle, where real processes cannot be made to meet at the right instant."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import config
from gateway.control.processes.lock import StoreLock
from gateway.control.processes.upgrade import UpgradeFailed
from gateway.errors import StoreError
from gateway.serve import process as serve
from gateway.serve.charge import in_charge
from gateway.serve.wiring import Components
from gateway.store.opening import open_store
from gateway.store.sqlite import SqliteStore
from gateway.store.transaction import SqliteTransaction
from tests import postgres

SUCCESSOR = 4_000_000
"""A pid."""


def settings_in(folder: Path) -> dict[str, Any]:
    return {"store": {"url": f"sqlite:///{folder / 'gateway.db'}"}, "admin": {"address": "127.0.0.1:0"}}


class _Template:
    """Forks nobody."""

    def attach(self, owner: Any) -> None:
        pass

    def close(self) -> None:
        pass


class _Upgrade:
    """An upgrade that succeeds; a signal to stop comes when everything has been handed over."""

    def __init__(self, *, quiesce: Any, **_: Any) -> None:
        self._quiesce = quiesce

    async def run(self) -> int:
        await self._quiesce()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)  # the handler runs, and what waits for it wakes up
        await asyncio.sleep(0)
        return SUCCESSOR


async def components_of(control: serve.Control) -> Components:
    """Return what a control opens, on the store of its settings."""
    return await Components.open(
        control.settings,
        (await in_charge(control.settings))[0],
        control.hub,
        control.tally,
        control,
        marks={},
        upgrade=control.upgrade,
        listeners=lambda: (),
    )


async def test_a_stop_during_the_handover_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the old control would stop what is not its own any more, and the gateway go on."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(serve, "Upgrade", _Upgrade)
    settings = config.check(settings_in(tmp_path))
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    control.handles.acquire()
    control.handles.bind_admin()
    control.opened = await components_of(control)
    control.listen_to_signals()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(control.serve())
        group.create_task(control.upgrade())
    assert serving.result() == 0
    assert (SUCCESSOR, signal.SIGTERM) in sent
    assert (tmp_path / "gateway.lock").read_text() != "", "the lock is the successor's now"


async def test_a_store_is_closed_when_what_stands_on_it_cannot_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads would keep the process alive for ever."""
    closed: list[bool] = []
    close = SqliteStore.close

    async def closing(store: SqliteStore) -> None:
        closed.append(True)
        await close(store)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot be built")

    monkeypatch.setattr(SqliteStore, "close", closing)
    monkeypatch.setattr("gateway.serve.wiring.Catalog", broken)
    settings = config.check(settings_in(tmp_path))
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        await components_of(control)
    assert closed == [True]


async def opened(tmp_path: Path) -> serve.Control:
    """Return a control that has everything but workers."""
    settings = config.check(settings_in(tmp_path))
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    control.handles.acquire()
    control.handles.bind_admin()
    control.opened = await components_of(control)
    await control.components.store.raise_epoch()
    return control


class _DeadSuccessor:
    """An upgrade whose successor raises the epoch, and dies."""

    def __init__(self, *, quiesce: Any, resume: Any, **_: Any) -> None:
        self._quiesce, self._resume = quiesce, resume

    async def run(self) -> int:
        await self._quiesce()
        other = await SqliteStore.open(self.url, now=datetime.now(UTC))
        await other.raise_epoch()
        await other.close()
        await self._resume()
        raise UpgradeFailed("the new control ended with 7 before it was in charge")

    url = ""


async def test_control_takes_the_epoch_back_from_a_dead_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It believed that the new one was in charge, and left: nobody was."""
    control = await opened(tmp_path)
    monkeypatch.setattr(_DeadSuccessor, "url", control.settings.store.url)
    monkeypatch.setattr(serve, "Upgrade", _DeadSuccessor)
    with pytest.raises(UpgradeFailed):
        await control.upgrade()
    assert await control.components.store.is_current()
    await control.components.store.prune(datetime.now(UTC))  # it writes again
    assert not control.is_stopping
    await control.background.stop_loops()
    await control.abandon()


class _LostSuccessor:
    """An upgrade whose successor dies once all was handed over."""

    def __init__(self, *, quiesce: Any, resume: Any, **_: Any) -> None:
        self._quiesce, self._resume = quiesce, resume

    async def run(self) -> int:
        await self._quiesce()
        await self._resume()
        raise UpgradeFailed("the new control ended with 7 before it was in charge")


@asynccontextmanager
async def following(folder: Path, url: str) -> AsyncIterator[tuple[serve.Control, Callable[[], Any]]]:
    """Return a control without workers that follows, and what has whom it follows let go."""
    leader = await open_store(url, now=datetime.now(UTC))
    await leader.claim("a", "a")
    holding = asyncio.ensure_future(leader.hold())
    settings = config.check({**settings_in(folder), "store": {"url": url}, "cluster": {"serve": True}})
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    control.folder.mkdir()
    control.handles.acquire()
    control.handles.bind_admin()
    await control._open_components(await control._in_charge())
    control.supervisor.open = lambda: None  # type: ignore[method-assign]  # nobody forks here
    await control._take_charge()

    async def let_go() -> None:
        holding.cancel()
        await leader.release()

    try:
        yield control, let_go
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        if not control._ended.done():
            await control.background.stop_loops()
            await control.components.admin.close(1)
            await control.abandon()
        await leader.close()


@postgres.needs_postgres
async def test_a_follower_whose_successor_dies_follows_on_and_takes_over_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "Upgrade", _LostSuccessor)
    async with following(tmp_path, postgres.shared().migrated()) as (control, let_go):
        rollouts = control.components.rollouts
        with pytest.raises(UpgradeFailed):
            await control.upgrade()
        assert (control.components.store.follows, rollouts.leads) == (True, False)
        await let_go()
        async with asyncio.timeout(60):
            while not rollouts.leads:
                await asyncio.sleep(0.05)
        assert await control.components.store.is_current()


@postgres.needs_postgres
async def test_a_follower_that_a_later_release_has_shut_out_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, and not when it is to take over: what it reads may mean something else by now."""
    monkeypatch.chdir(tmp_path)
    url = postgres.shared().migrated()
    async with following(tmp_path, url) as (control, _):
        # Who is in charge is of the later release.
        postgres.shared().sql("UPDATE gateway_lease SET holder = 'b', lapses_at = now() + '1 hour'", url)
        postgres.shared().sql("UPDATE gateway_meta SET value = '99' WHERE key = 'compatible_from'", url)
        async with asyncio.timeout(60):
            assert await control.serve() == 1
    assert "it needs a gateway with schema 99 or newer" in capsys.readouterr().out


async def test_control_that_cannot_take_the_epoch_back_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = await opened(tmp_path)
    monkeypatch.setattr(_DeadSuccessor, "url", control.settings.store.url)
    monkeypatch.setattr(serve, "Upgrade", _DeadSuccessor)

    async def fails(store: SqliteStore) -> bool:
        raise StoreError("disk I/O error")

    monkeypatch.setattr(SqliteStore, "is_current", fails)
    with pytest.raises(StoreError):
        await control.upgrade()
    assert await control.serve() == 1


async def test_nothing_is_bound_where_the_disk_fills_between_the_two_writes_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had come to the new sockets by then was reset, while workers of a former control served on."""
    service = {"name": "auth", "routes": [{"path": "/"}]}
    listen = {"address": "127.0.0.1:0"}
    settings = config.check({**settings_in(tmp_path), "listen": listen, "service": [service]})
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    store = await control._in_charge()
    raise_epoch = store.raise_epoch

    async def raised_on_a_disk_that_fills_then() -> int:
        def full(transaction: SqliteTransaction, service: Any) -> None:
            raise StoreError("database or disk is full")

        monkeypatch.setattr(SqliteTransaction, "put_service", full)
        return await raise_epoch()

    monkeypatch.setattr(store, "raise_epoch", raised_on_a_disk_that_fills_then)
    bound: list[str] = []
    monkeypatch.setattr(control.listeners, "bind", lambda: bound.append("proxy"))
    monkeypatch.setattr(control.handles, "bind_admin", lambda: bound.append("admin"))
    with pytest.raises(StoreError, match="full"):
        await control._bound(store)
    assert not bound
    await control.background.release()


@pytest.mark.parametrize("waits_in", ["gather_orphans", "until_there", "in_charge", "patiently"])
async def test_a_stop_ends_a_start_after_a_crash_whatever_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits_in: str
) -> None:
    """It was acted on when the database was back, or had failed each step for fifteen seconds; then never."""
    StoreLock.acquire(tmp_path).drop()  # its holder was killed
    settings = config.check(settings_in(tmp_path))
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    stopped: list[float] = []

    async def stop(deadline_s: float) -> None:
        stopped.append(deadline_s)

    async def stopped_while_it_waits(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        if waits_in != "gather_orphans":
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)  # what has to be done before it can be stopped

    monkeypatch.setattr(control.supervisor, "stop", stop)
    owner = control.supervisor if waits_in == "gather_orphans" else serve
    monkeypatch.setattr(owner, waits_in, stopped_while_it_waits)
    control.listen_to_signals()
    starting = asyncio.ensure_future(control.start(None))
    await asyncio.wait({starting}, timeout=30)
    assert starting.cancelled()
    await control.abandon()
    assert control.is_stopping
    assert stopped == [settings.shutdown.drain / 1000], "orphans drain, and are not left to nobody"


async def test_the_store_is_held_before_anything_is_built_on_it(tmp_path: Path) -> None:
    """A start that looks names up takes longer than a lease lasts: a stand-by would take over amid it."""
    settings = config.check(settings_in(tmp_path))
    control = serve.Control(settings, lambda: settings, _Template())  # type: ignore[arg-type]
    store = await control._until_ours()
    assert {"lease", "presence"} <= {task.get_name() for task in asyncio.all_tasks()}
    await asyncio.sleep(0)
    (node,) = await store.nodes()
    assert (node.name, node.is_leader, node.id) == (
        socket.gethostname(),
        True,
        (await store.meta("gateway_id") or b"").decode(),
    )
    assert not (tmp_path / "node.id").exists(), "a file needs no name for its place"
    await control.background.release()
    await store.close()


async def test_nothing_is_handed_over_while_something_is_in_force_that_is_not_stored() -> None:
    """It was done after the upgrade had begun, on a disk that failed until the new control raised its epoch:
    that one went by what was stored, and the rollback was undone.
    """

    async def stopped() -> None:
        rollouts.has_unstored = True  # the last tick could not be committed

    rollouts = SimpleNamespace(has_unstored=False)
    admin = SimpleNamespace(hold_changes=lambda *, held: None)
    control: Any = SimpleNamespace(
        components=SimpleNamespace(rollouts=rollouts, admin=admin),
        hub=SimpleNamespace(pause=lambda: None),
        _is_alone=asyncio.Event(),
        _stop_loops=stopped,
    )
    with pytest.raises(UpgradeFailed, match="stored"):
        await serve.Control._quiesce(control)
