"""What is lost while things come and go: one row per fault, each under a constant open-loop load.

Every row starts a fresh gateway with two workers and real sample services, loads it with at least
`--requests` requests, and does its deed meanwhile. Lost is a request that was refused, reset,
truncated, timed out or answered with a 5xx.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.deeds import (
    ROLLBACK_S,
    Deed,
    admin_crowded,
    all_workers_killed,
    blue_green,
    control_killed,
    disk_full,
    drained_and_stopped,
    endpoint_killed,
    gateway_upgrade,
    immediate,
    reload,
    rollback,
    store_locked,
    template_killed,
    weight_steps,
    worker_hung,
    worker_killed,
)
from bench.harness import World
from bench.load import Load, LoadReport, LoadSettings
from bench.peers import subfolder, workspace

MAX_MS: Final = 2_000.0


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
    Row("template kill -9 × 3", template_killed),
    Row("all workers kill -9, twice in a second", all_workers_killed),
    Row("641 idle admin connections", admin_crowded),
)


async def run_row(row: Row, folder: Path, *, requests: int, rate: float, patience: float = 1.0) -> RowResult:
    """Carry one row out. Raises whatever its deed raises.

    patience: how many times as long as on a machine of its own things may take.
    """
    async with World(folder, replicas=row.replicas, policies=row.policies) as world:
        settings = LoadSettings(
            port=world.port, rate=rate, upload_method=row.upload_method, upload_bytes=row.upload_bytes
        )
        load = Load(settings)
        deed = Deed(world, load=load, rate=rate, patience=patience)
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
