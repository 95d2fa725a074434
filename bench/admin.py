"""What writes to the admin API cost the requests that are proxied: p99 with and without, in turn.

Each write changes a version (a commit with its audit row, and a table to every worker). They are sent by a
process of their own at a fixed rate, so that what is measured is the gateway and not this load.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from bench import report
from bench.client import Connection, Lost, request_head
from bench.harness import ADMIN, World
from bench.load import KEPT, Load, LoadSettings

LINES = 32
"""Connections the writes share: a commit at a time, the next ones waiting."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.write:
        print(json.dumps(asyncio.run(write(options))))
        return 0
    rounds = asyncio.run(measure(options))
    without, beside = (median(each[name] for each in rounds) for name in ("without", "beside"))
    ratio = median(each["beside"] / each["without"] for each in rounds)
    written = median(each["written"] for each in rounds)
    print(
        report.table(
            ["proxied, at a fixed rate", "p99 ms"],
            [["alone", f"{without:.2f}"], [f"beside {written:.0f} admin writes/s", f"{beside:.2f}"]],
        )
    )
    print(f"\nratio {ratio:.2f} (median of {len(rounds)} rounds of {options.seconds} s)")
    report.save("admin", {"options": vars(options), "rounds": rounds, "ratio": ratio})
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench admin", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rate", type=int, default=500, help="proxied requests per second")
    parser.add_argument("--writes", type=int, default=500, help="admin writes per second")
    parser.add_argument("--database", help="the store's url in PostgreSQL, an empty database (a file)")
    parser.add_argument("--write", nargs=3, metavar=("PORT", "TOKEN", "VERSION"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


async def measure(options: argparse.Namespace) -> list[dict[str, float]]:
    """Return p99 in ms without and beside writes, and writes a second, of each round."""
    rounds = []
    with tempfile.TemporaryDirectory(prefix="bench-admin-") as folder:
        async with World(Path(folder), database=options.database) as world:
            _, version_id = await world.add_version("v1.1")
            await proxied(world, options)  # everything is warm
            for _ in range(options.rounds):
                without = await proxied(world, options)
                writing = asyncio.ensure_future(writer(world, options, version_id))
                beside = await proxied(world, options)
                written = await writing
                rounds.append({"without": without, "beside": beside, "written": written["rate"]})
                if set(written["answers"]) != {"200"}:
                    raise SystemExit(f"writes were answered {written['answers']}")
    return rounds


async def proxied(world: World, options: argparse.Namespace) -> float:
    """Return the p99 of a run in ms. Raises SystemExit if a request failed."""
    load = Load(LoadSettings(port=world.port, rate=options.rate, connections=32, cycle=(KEPT,)))
    result = await load.run(options.rate * options.seconds)
    if result.failures:
        raise SystemExit(f"{result.failures} requests failed: {result.examples}")
    return result.p99_ms


async def writer(world: World, options: argparse.Namespace, version_id: str) -> dict[str, Any]:
    """Run the writes in a process of their own; return what became of them."""
    command = [sys.executable, "-m", "bench", "admin", "--seconds", str(options.seconds)]
    command += ["--writes", str(options.writes), "--write", str(world.admin_port), world.token, version_id]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    out, _ = await process.communicate()
    found: dict[str, Any] = json.loads(out)
    return found


async def write(options: argparse.Namespace) -> dict[str, Any]:
    """Send writes at a fixed rate; return how many a second were answered, and how."""
    port, token, version_id = options.write
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(LINES):
        free.put_nowait(await Connection.open("127.0.0.1", int(port)))
    answers: Counter[str] = Counter()

    async def one(number: int) -> None:
        connection = await free.get()
        body = json.dumps({"shutdownUrl": f"http://127.0.0.1:9/stop/{number}"}).encode()
        fields = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
        fields.append(("Content-Length", str(len(body))))
        head = request_head(
            "PATCH", f"{ADMIN}/deployment/versions/{version_id}", fields, host=f"127.0.0.1:{port}"
        )
        try:
            answers[str((await connection.exchange(head + body)).status)] += 1
        except Lost as exc:
            answers[exc.kind] += 1
        free.put_nowait(connection)

    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(options.writes * options.seconds):
            await asyncio.sleep(max(0.0, started + number / options.writes - time.monotonic()))
            group.create_task(one(number), name=f"write-{number}")
    seconds = time.monotonic() - started
    return {"rate": sum(answers.values()) / seconds, "answers": answers}
