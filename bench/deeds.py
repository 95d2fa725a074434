"""What the fault rows do to a gateway under load: each deed acts, and notes what that may cost."""

import asyncio
import contextlib
import os
import signal
import time
from functools import partial
from typing import Final

import msgspec

from bench.client import Lost
from bench.harness import World, gone, held_connections
from bench.load import Load
from bench.procs import kill
from bench.store_faults import TICK_S, Errors, full_disk, locked, unjudged, until_returned, verdict_at

STEP_S: Final = 0.2
"""Between two deeds of a row."""
ROLLBACK_S: Final = 2.0
"""A rollback's time, from the verdict or the order."""
CROWDED_ROLLBACK_S: Final = 1.0
"""The same while the admin listener is crowded."""
NEXT_ANSWER_S: Final = 1.0
IDLE_ADMINS: Final = 641
"""More than the admin listener keeps open."""


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
    patience: float = 1.0
    """How many times as long as on a machine of its own things may take."""
    evidence_lost: int | None = None
    """Answers that a rollout should have been judged by and was not; None: the row says nothing of it."""
    rollback_s: float | None = None
    """From the verdict, or the order, to the last worker's weights."""


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
    await timed_rollback(deed, rollout)


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


async def template_killed(deed: Deed) -> None:
    """The process that forks workers is killed three times, then a worker: its twin's twin replaces it."""
    rollout = await half_there(deed)
    for _ in range(3):
        await deed.world.until(lambda: len(deed.world.templates()) == 2, "a template and its twin")
        victim = deed.world.templates()[0]
        kill(victim, signal.SIGKILL)
        await deed.world.until(partial(gone, victim), f"template {victim} to be gone")
    await timed_rollback(deed, rollout)
    await strike_worker(deed, 0, signal.SIGKILL)


async def all_workers_killed(deed: Deed) -> None:
    """Every worker is killed, and once more within the second. The next answer comes within one."""
    world = deed.world
    rollout = await half_there(deed)
    struck: frozenset[int] = frozenset()
    for _ in range(2):
        await world.until(partial(world.all_workers_serve, struck), "all workers, new ones")
        pids = await world.worker_pids()
        struck |= frozenset(pids)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        deed.allowed += sum(held_connections(pid, world.port) for pid in pids)
        for pid in pids:
            kill(pid, signal.SIGKILL)
    began = time.monotonic()
    answered = await world.serves()
    after_s = time.monotonic() - began
    if not answered or after_s > deed.patience * NEXT_ANSWER_S:
        deed.wants = f"the next answer came after {after_s:.2f} s"
    await timed_rollback(deed, rollout)
    await world.until(partial(world.all_workers_serve, struck), "all workers again")


async def admin_crowded(deed: Deed) -> None:
    """641 connections to the admin listener say nothing, and a rollback is ordered all the same."""
    rollout = await half_there(deed)
    async with contextlib.AsyncExitStack() as crowd:
        for _ in range(IDLE_ADMINS):
            _, writer = await asyncio.open_connection("127.0.0.1", deed.world.admin_port)
            crowd.callback(writer.close)
        took_s = await timed_rollback(deed, rollout)
        if took_s > deed.patience * CROWDED_ROLLBACK_S:
            deed.wants = f"the rollback took {took_s:.1f} s"


async def half_there(deed: Deed) -> str:
    """Roll a second version out to half of the traffic; returns the deployment's id."""
    await deed.world.add_version("v1.1")
    return await deed.world.start_rolling("v1.1", steps=[50, 100], stepInterval=3_600_000)


async def timed_rollback(deed: Deed, rollout: str) -> float:
    """Order a rollback; returns the seconds to its reply, which comes when all workers have the weights."""
    began = time.monotonic()
    await deed.world.api("POST", f"deployment/{rollout}/rollback")
    deed.rollback_s = time.monotonic() - began
    await expect_status(deed, rollout, "rolled_back")
    deed.evidence_lost = await uncounted(deed, "v1.1")
    return deed.rollback_s


async def uncounted(deed: Deed, version: str) -> int:
    """Return how many answers of a version clients got that control has not counted two seconds later."""
    assert deed.load is not None
    missing = 0
    for _ in range(10):
        stats = await deed.world.api("GET", "services/auth/stats")
        counted = sum(row["total"] for row in stats["versions"] if row["version"] == version)
        missing = max(0, deed.load.versions[version] - counted)
        if not missing:
            break
        await asyncio.sleep(STEP_S)
    return missing


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
