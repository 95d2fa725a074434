"""What writes to the admin API cost the requests that are proxied: p50 and p99 alone, beside writes, and
beside as much other work, in turn.

Each write changes a version: a commit with its audit row. One of `settings` (what is called when a version
has had its day) concerns no request; one of `weights` is a new table for every worker. They are sent by a
process of their own at a fixed rate, so that what is measured is the gateway and not this load.

Whatever else runs on a machine takes processor time from requests. So two further processes that have nothing
to do with the gateway burn as much as control and the writer just took, in the same rhythm: what requests are
slower beside writes than beside those is what writes do to them in the gateway.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench import report
from bench.client import Connection, Lost, request_head
from bench.harness import ADMIN, World
from bench.load import KEPT, Load, LoadSettings
from bench.procs import cpu_ns

LINES = 32
"""Connections the writes share: a commit at a time, the next ones waiting."""


class Proxied(msgspec.Struct, frozen=True):
    """A run of requests through the gateway."""

    p50_ms: float
    p99_ms: float


class Written(msgspec.Struct, frozen=True):
    """A run of writes."""

    answers: dict[str, int]
    """By status, or by what became of the connection."""
    rate: float
    p50_ms: float
    p99_ms: float
    sender_ms: float
    """Processor time of a write in the process that sent it."""


class Round(msgspec.Struct, frozen=True):
    """A run without writes, the next one beside them, and one beside as much other work."""

    without: Proxied
    beside: Proxied
    other: Proxied
    written: Written
    control_ms: float
    """Processor time of a write in control: what the second run took more than the first."""
    workers_ms: float
    """The same in all workers."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.write:
        print(msgspec.json.encode(asyncio.run(write(options))).decode())
        return 0
    if options.burn is not None:
        burn(options.burn, options.writes, options.seconds)
        return 0
    rounds = asyncio.run(measure(options))

    def middle(value: Callable[[Round], float], digits: int = 2) -> str:
        return f"{median(map(value, rounds)):.{digits}f}"

    rows = [
        [
            "requests alone",
            middle(lambda each: each.without.p50_ms),
            middle(lambda each: each.without.p99_ms),
        ],
        ["requests beside", middle(lambda each: each.beside.p50_ms), middle(lambda each: each.beside.p99_ms)],
        [
            "requests beside as much other work",
            middle(lambda each: each.other.p50_ms),
            middle(lambda each: each.other.p99_ms),
        ],
        ["writes", middle(lambda each: each.written.p50_ms), middle(lambda each: each.written.p99_ms)],
    ]
    rate = middle(lambda each: each.written.rate, 0)
    print(report.table([f"{rate} writes/s ({options.kind})", "p50 ms", "p99 ms"], rows))
    control, workers = middle(lambda each: each.control_ms), middle(lambda each: each.workers_ms)
    print(f"\nprocessor time of a write: {control} ms in control, {workers} ms in {options.workers} workers")
    print(f"(medians of {len(rounds)} rounds of {options.seconds} s, the three in turn)")
    report.save("admin", {"options": vars(options), "rounds": msgspec.to_builtins(rounds)})
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench admin", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=500, help="proxied requests per second")
    parser.add_argument("--writes", type=int, default=500, help="admin writes per second")
    parser.add_argument(
        "--kind", choices=("settings", "weights"), default="settings", help="what they change"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", help="the store's url in PostgreSQL, an empty database (a file)")
    parser.add_argument("--write", nargs=3, metavar=("PORT", "TOKEN", "VERSION"), help=argparse.SUPPRESS)
    parser.add_argument("--burn", type=float, metavar="MS", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


async def measure(options: argparse.Namespace) -> list[Round]:
    """Return what became of each round. Raises SystemExit if anything failed."""
    rounds = []
    with tempfile.TemporaryDirectory(prefix="bench-admin-") as folder:
        async with World(Path(folder), workers=options.workers, database=options.database) as world:
            _, version_id = await world.add_version("v1.1")
            await proxied(world, options)  # everything is warm
            processes = [world.control.process.pid], await world.worker_pids()
            for _ in range(options.rounds):
                began = [cpu_ns(pids) for pids in processes]
                without = await proxied(world, options)
                turned = [cpu_ns(pids) for pids in processes]
                async with asyncio.TaskGroup() as group:
                    writing = group.create_task(writer(world, options, version_id))
                    beside = await proxied(world, options)
                written = writing.result()
                if set(written.answers) != {"200"}:
                    raise SystemExit(f"writes were answered {written.answers}")
                ended = [cpu_ns(pids) for pids in processes]
                more = [
                    last - 2 * middle + first
                    for first, middle, last in zip(began, turned, ended, strict=True)
                ]
                control_ms, workers_ms = (each / 1e6 / written.answers["200"] for each in more)
                other = await beside_other_work(world, options, (control_ms + workers_ms, written.sender_ms))
                rounds.append(Round(without, beside, other, written, control_ms, workers_ms))
    return rounds


async def beside_other_work(
    world: World, options: argparse.Namespace, costs_ms: tuple[float, float]
) -> Proxied:
    """Return what a run of requests shows beside a process for each of `costs_ms`, burnt at each beat."""
    command = [sys.executable, "-m", "bench", "admin", "--seconds", str(options.seconds)]
    command += ["--writes", str(options.writes), "--burn"]
    burners = [await asyncio.create_subprocess_exec(*command, f"{max(cost, 0):.4f}") for cost in costs_ms]
    try:
        result = await proxied(world, options)
        await asyncio.gather(*(burner.wait() for burner in burners))
    finally:
        for burner in burners:
            if burner.returncode is None:
                burner.kill()
                await burner.wait()
    return result


def burn(cost_ms: float, rate: int, seconds: int) -> None:
    """Take `cost_ms` of processor time so many times a second, each at its beat, or at once when late."""
    started = time.monotonic()
    used_ns = time.process_time_ns()
    for number in range(rate * seconds):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        used_ns += int(cost_ms * 1e6)
        while time.process_time_ns() < used_ns:
            pass


async def proxied(world: World, options: argparse.Namespace) -> Proxied:
    """Return what a run of requests shows. Raises SystemExit if a request failed."""
    load = Load(LoadSettings(port=world.port, rate=options.rate, connections=32, cycle=(KEPT,)))
    result = await load.run(options.rate * options.seconds)
    if result.failures:
        raise SystemExit(f"{result.failures} requests failed: {result.examples}")
    return Proxied(result.p50_ms, result.p99_ms)


async def writer(world: World, options: argparse.Namespace, version_id: str) -> Written:
    """Run the writes in a process of their own; return what became of them."""
    command = [sys.executable, "-m", "bench", "admin", "--seconds", str(options.seconds)]
    command += ["--writes", str(options.writes), "--kind", options.kind]
    command += ["--write", str(world.admin_port), world.token, version_id]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return msgspec.json.decode(out, type=Written)


async def write(options: argparse.Namespace) -> Written:
    """Send writes at a fixed rate. A write's time counts from when it was due."""
    port, token, version_id = options.write
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(LINES):
        free.put_nowait(await Connection.open("127.0.0.1", int(port)))
    answers: Counter[str] = Counter()
    latencies_ms: list[float] = []

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        body = json.dumps(change(options.kind, number)).encode()
        fields = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
        fields.append(("Content-Length", str(len(body))))
        head = request_head(
            "PATCH", f"{ADMIN}/deployment/versions/{version_id}", fields, host=f"127.0.0.1:{port}"
        )
        try:
            answers[str((await connection.exchange(head + body)).status)] += 1
        except Lost as exc:
            answers[exc.kind] += 1
        latencies_ms.append((time.monotonic() - due) * 1000)
        free.put_nowait(connection)

    started, used_s = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(options.writes * options.seconds):
            due = started + number / options.writes
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(one(number, due), name=f"write-{number}")
    used_ms = (time.process_time() - used_s) * 1000
    ordered = sorted(latencies_ms)
    return Written(
        answers=dict(answers),
        rate=len(ordered) / (time.monotonic() - started),
        p50_ms=ordered[len(ordered) // 2],
        p99_ms=ordered[int(len(ordered) * 0.99)],
        sender_ms=used_ms / len(ordered),
    )


def change(kind: str, number: int) -> dict[str, Any]:
    """Return the body of a write, each another one than the last."""
    if kind == "weights":
        return {"weight": 1 + number % 2}
    return {"shutdownUrl": f"http://127.0.0.1:9/stop/{number}"}
