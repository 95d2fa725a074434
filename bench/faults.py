"""What is lost while things come and go: one row per fault, each under a constant open-loop load.

Every row starts a fresh gateway with two workers and real sample services, loads it with at least
`--requests` requests, and does its deed meanwhile. Lost is a request that was refused, reset,
truncated, timed out or answered with a 5xx.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.client import Lost
from bench.harness import World, gone, held_connections
from bench.load import Load, LoadReport, LoadSettings
from bench.peers import subfolder, workspace
from bench.procs import kill
from bench.store_faults import TICK_S, Errors, full_disk, locked, unjudged, until_returned, verdict_at

MAX_MS: Final = 2_000.0
ROLLBACK_S: Final = 2.0
"""A rollback's time, from the verdict or the order."""
STEP_S: Final = 0.2
"""Between two deeds of a row."""


class Deed(msgspec.Struct):
    """What a row may see and say while it acts."""

    world: World
    allowed: int = 0
    """Losses this row may cost: connections that a killed worker held."""
    load: Load | None = None
    rate: float = 0.0
    """Of the load: requests per second."""
    wants: str = ""
    """Why the row failed although nothing was lost; empty: it did not."""
    evidence_lost: int | None = None
    """Answers that a rollout should have been judged by and was not; None: the row says nothing of it."""
    rollback_s: float | None = None
    """From the verdict, or the order, to the last worker's weights."""


class Row(msgspec.Struct, frozen=True):
    """One fault."""

    name: str
    act: Callable[[Deed], Awaitable[None]]
    replicas: int = 0
    policies: str = ""
    """TOML of the service."""
    upload_method: str = "POST"
    upload_bytes: int = 65_536
    max_ms: float = MAX_MS


class RowResult(msgspec.Struct, frozen=True):
    """What a row came to."""

    name: str
    load: LoadReport
    allowed: int
    max_allowed_ms: float
    wants: str
    evidence_lost: int | None = None
    rollback_s: float | None = None

    @property
    def passed(self) -> bool:
        in_time = self.rollback_s is None or self.rollback_s <= ROLLBACK_S
        return (
            self.load.failures <= self.allowed
            and self.load.max_ms <= self.max_allowed_ms
            and not self.wants
            and not self.evidence_lost
            and in_time
        )


async def weight_steps(deed: Deed) -> None:
    """Fifty changes of the share, up and down."""
    world = deed.world
    await world.add_version("v1.1")
    rollout = await world.start_rolling("v1.1", steps=[1, 100], stepInterval=3_600_000)
    for k in range(50):
        await world.api("PUT", f"deployment/{rollout}/traffic", {"percent": (k * 37) % 99 + 1})
        await asyncio.sleep(STEP_S)
    await world.api("POST", f"deployment/{rollout}/rollback")


async def blue_green(deed: Deed) -> None:
    await deploy(deed, "blue-green")


async def immediate(deed: Deed) -> None:
    await deploy(deed, "immediate")


async def deploy(deed: Deed, strategy: str) -> None:
    """One whole deployment: gate, switch, bake, the old version drained; then its process ends."""
    await deed.world.add_version("v1.1")
    rollout = await deed.world.start("v1.1", strategy, bakeTime=2_000, drainTimeout=5_000)
    await expect_status(deed, rollout, "completed")
    await asyncio.to_thread(deed.world.samples[0].stop)


async def rollback(deed: Deed) -> None:
    """Half the traffic there, then all of it back."""
    await deed.world.add_version("v1.1")
    rollout = await deed.world.start_rolling("v1.1", steps=[50, 100], stepInterval=3_600_000)
    await asyncio.sleep(1)
    await deed.world.api("POST", f"deployment/{rollout}/rollback")
    await expect_status(deed, rollout, "rolled_back")


async def drained_and_stopped(deed: Deed) -> None:
    """A version loses its traffic and is drained; its process ends as soon as that is said to be safe."""
    world = deed.world
    old = world.samples[0]
    old_id = await world.version_id("v1.0")
    _, new_id = await world.add_version("v1.1")
    await world.api("PATCH", f"deployment/versions/{new_id}", {"weight": 100})
    await world.until(lambda: world.is_active(new_id), "v1.1 to be active")
    await world.api("PATCH", f"deployment/versions/{old_id}", {"weight": 0})
    await world.api("POST", f"deployment/versions/{old_id}/drain")

    async def is_safe() -> bool:
        return bool((await world.api("GET", f"deployment/versions/{old_id}/drain"))["safeToStop"])

    await world.until(is_safe, "v1.0 to be drained")
    await asyncio.to_thread(old.stop)


async def endpoint_killed(deed: Deed) -> None:
    """One of three processes of a version is killed and comes back, five times."""
    world = deed.world
    for k in range(5):
        victim = world.samples[k % 3]
        victim.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(world.restart_sample, victim)
        await asyncio.sleep(1)


async def reload(deed: Deed) -> None:
    """Twenty reloads, each with something changed."""
    for k in range(20):
        deed.world.write_config(extra=f"[limits]\nheader_bytes = {32_768 + k}\n")
        await deed.world.reload()
        await asyncio.sleep(STEP_S)


async def gateway_upgrade(deed: Deed) -> None:
    """Five upgrades of the gateway, each waited for."""
    world = deed.world
    for _ in range(5):
        before = (await world.info())["pid"]
        await world.api("POST", "gateway/upgrade")
        await world.until(partial(in_charge_after, world, before), "a new control process")
        await world.until(world.all_workers_serve, "its workers")


async def control_killed(deed: Deed) -> None:
    """Control is killed five times; workers serve alone for a second before the next one starts."""
    world = deed.world
    for _ in range(5):
        await world.kill_control()
        await asyncio.sleep(1)
        await asyncio.to_thread(world.start_gateway)
        await world.until(world.all_workers_serve, "the new control's workers")


async def worker_killed(deed: Deed) -> None:
    """A worker is killed five times. It may cost the connections it held one request each."""
    for k in range(5):
        await strike_worker(deed, k, signal.SIGKILL)


async def worker_hung(deed: Deed) -> None:
    """A worker stops answering twice, and is replaced."""
    for k in range(2):
        await strike_worker(deed, k, signal.SIGSTOP)


async def disk_full(deed: Deed) -> None:
    """A bad version gets its first traffic, and the store cannot be written from then on."""
    world, load = deed.world, deed.load
    assert load is not None
    _, new_id = await world.add_version("v1.1", "--error-rate", "0.3", "--seed", "1")
    rollout = await world.start_rolling("v1.1", steps=[10, 100], stepInterval=3_600_000)
    errors = Errors(load)
    watching = asyncio.ensure_future(errors.watch())
    try:
        with full_disk(int((await world.info())["pid"])):
            async with asyncio.timeout(60):
                returned = await until_returned(world, new_id)
            await asyncio.sleep(0.1)  # what was under way
            deed.allowed = load.lost["500"]
            await asyncio.sleep(3)
        await expect_status(deed, rollout, "rolled_back")
    finally:
        watching.cancel()
    decided = await verdict_at(world, rollout)
    deed.rollback_s = returned - decided
    judged = int((await world.deployment(rollout))["errorCount"])
    deed.evidence_lost = max(0, errors.before(decided - TICK_S) - judged)


async def store_locked(deed: Deed) -> None:
    """Another process holds the store for 30 s of a good rollout; and again while it is to be rolled back."""
    world = deed.world
    _, new_id = await world.add_version("v1.1")
    rollout = await world.start_rolling("v1.1", steps=[10, 100], stepInterval=3_600_000)
    with locked(world):
        await asyncio.sleep(30)
    await asyncio.sleep(4)
    with locked(world):
        ordered = time.time()
        asked = asyncio.ensure_future(world.ask("POST", f"deployment/{rollout}/rollback"))
        async with asyncio.timeout(60):
            deed.rollback_s = await until_returned(world, new_id) - ordered
        answer = await asked
        if answer.status != 202 or answer.json()["stored"]:
            deed.wants = f"the order was answered {answer.status}"
    await expect_status(deed, rollout, "rolled_back")
    # Of the last second before the order nothing was judged: it is no part of what was locked.
    deed.evidence_lost = max(0, await unjudged(world, rollout, "v1.1") - round(2 * TICK_S * deed.rate / 10))


async def strike_worker(deed: Deed, turn: int, number: signal.Signals) -> None:
    """Stop a worker, count what it holds, then send it `number`, and wait until another has its slot."""
    world = deed.world
    pids = await world.worker_pids()
    victim = pids[turn % len(pids)]
    os.kill(victim, signal.SIGSTOP)
    # Not in a thread: it would get its turns between those of the load, and the worker be still meanwhile.
    deed.allowed += held_connections(victim, world.port)
    kill(victim, number)
    await world.until(lambda: gone(victim), f"worker {victim} to be gone")
    await world.until(lambda: world.all_workers_serve(frozenset({victim})), "the next worker in its slot")
    await asyncio.sleep(STEP_S)


async def in_charge_after(world: World, before: int) -> bool:
    """Whether a control process other than `before` answers the admin API."""
    with contextlib.suppress(Lost, RuntimeError):
        return bool((await world.info())["pid"] != before)
    return False


async def expect_status(deed: Deed, rollout: str, status: str) -> None:
    ended = await deed.world.settled(rollout)
    if ended != status:
        deed.wants = f"deployment ended {ended}, not {status}"


ROWS: Final = (
    Row("weight steps × 50", weight_steps),
    Row("blue-green", blue_green),
    Row("immediate", immediate),
    Row("rollback", rollback),
    Row("version drained and stopped", drained_and_stopped),
    Row(
        "endpoint kill -9 × 5",
        endpoint_killed,
        replicas=2,
        policies="breaker = { reset_timeout = 500 }",
        upload_method="PUT",
        upload_bytes=16_384,
    ),
    Row("reload × 20", reload),
    Row("gateway upgrade × 5", gateway_upgrade),
    Row("control kill -9 × 5", control_killed),
    Row("worker kill -9 × 5", worker_killed),
    Row("disk full during a bad canary", disk_full),
    Row("store locked 30 s", store_locked),
    Row("worker hung × 2", worker_hung, max_ms=6_000),
)


async def run_row(row: Row, folder: Path, *, requests: int, rate: float) -> RowResult:
    """Carry one row out. Raises whatever its deed raises."""
    async with World(folder, replicas=row.replicas, policies=row.policies) as world:
        settings = LoadSettings(
            port=world.port, rate=rate, upload_method=row.upload_method, upload_bytes=row.upload_bytes
        )
        load = Load(settings)
        deed = Deed(world, load=load, rate=rate)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(load.run(requests, until=over), name="load")
            await world.until(lambda: load.ok >= min(200, requests // 10), "the load to run")
            try:
                await row.act(deed)
            finally:
                over.set()
        return RowResult(
            row.name,
            loading.result(),
            deed.allowed,
            row.max_ms,
            deed.wants,
            deed.evidence_lost,
            deed.rollback_s,
        )


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    chosen = [
        row for row in ROWS if not options.only or any(part in row.name for part in options.only.split(","))
    ]
    results: list[RowResult] = []
    broken: dict[str, str] = {}
    with workspace() as folder:
        for k, row in enumerate(chosen):
            print(f"{row.name} …", flush=True)
            place = subfolder(folder, f"row-{k}")
            try:
                result = asyncio.run(run_row(row, place, requests=options.requests, rate=options.rate))
            except* (RuntimeError, TimeoutError, OSError, ConnectionError) as group:
                broken[row.name] = "; ".join(str(exc) for exc in group.exceptions)
            else:
                results.append(result)
                show(result)
    print("\n" + report.table(*rows(results)))
    for name, reason in broken.items():
        print(f"\n{name} could not be carried out: {reason}")
    report.save("faults", {"options": vars(options), "rows": msgspec.to_builtins(results), "broken": broken})
    return 0 if not broken and all(result.passed for result in results) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench faults", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="at least so many per row")
    parser.add_argument("--rate", type=float, default=1_500.0, help="requests per second")
    parser.add_argument("--only", default="", help="comma-separated parts of row names")
    return parser.parse_args(arguments)


def show(result: RowResult) -> None:
    for example in result.load.examples if not result.passed else ():
        print(f"    {example}")


def rows(results: list[RowResult]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table."""
    head = [
        "while",
        "requests",
        "lost",
        "allowed",
        "evidence lost",
        "rollback s",
        "p99 ms",
        "max ms",
        "verdict",
    ]
    body = [
        [
            result.name,
            str(result.load.sent),
            str(result.load.failures) + (f" {result.load.lost}" if result.load.lost else ""),
            str(result.allowed),
            "" if result.evidence_lost is None else str(result.evidence_lost),
            "" if result.rollback_s is None else f"{result.rollback_s:.2f}",
            f"{result.load.p99_ms:.1f}",
            f"{result.load.max_ms:.0f}",
            ("passed" if result.passed else "FAILED") + (f": {result.wants}" if result.wants else ""),
        ]
        for result in results
    ]
    return head, body
