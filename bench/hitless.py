"""Requests lost while services are replaced and the proxy itself is: the same rows for every proxy installed.

500 requests a second by default: 64 kept connections, one request in ten on a new connection, two in ten a
POST. Lost is a request that was refused, reset, truncated, timed out, or answered with a 5xx. Each proxy does
each deed in its normal way (`bench/hitless_peers.py`); an old server is stopped as soon as the proxy says
that it may.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.harness import Sample
from bench.hitless_peers import PEERS, VERSIONS, Gateway, Peer, Unsupported, program_of
from bench.load import KEPT, NEW, UPLOAD, Load, LoadReport, LoadSettings
from bench.peers import subfolder, workspace

CYCLE: Final = (KEPT, KEPT, UPLOAD, KEPT, NEW, KEPT, KEPT, UPLOAD, KEPT, KEPT)
RELOADS: Final = 5
BEFORE_S: Final = 1.0
AFTER_S: Final = 3.0
"""Of load before and after each deed."""


class Stage:
    """One proxy in front of two servers of the sample service."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer = peer
        self.folder = folder
        self.samples = [Sample.start("v1", folder), Sample.start("v1", folder)]

    def start(self) -> None:
        self.peer.start([sample.port for sample in self.samples])

    def close(self) -> None:
        self.peer.stop()
        for sample in self.samples:
            sample.stop()


def switch(stage: Stage) -> None:
    """All traffic to a new version; the old one is stopped at the proxy's word."""
    old = list(stage.samples)
    fresh = Sample.start("v2", stage.folder)
    stage.samples.append(fresh)
    stage.peer.point_at([fresh.port])
    for sample in old:
        sample.stop()


def reload(stage: Stage) -> None:
    """The proxy reads its configuration again, five times."""
    for _ in range(RELOADS):
        stage.peer.reload()


def upgrade(stage: Stage) -> None:
    """The proxy's own program is replaced while it runs."""
    stage.peer.upgrade()


def endpoint_killed(stage: Stage) -> None:
    """One of two servers dies."""
    stage.samples[0].kill()
    time.sleep(AFTER_S)


ROWS: Final[Mapping[str, Callable[[Stage], None]]] = {
    "switch and stop": switch,
    "reload × 5": reload,
    "own upgrade": upgrade,
    "endpoint killed": endpoint_killed,
}


class Outcome(msgspec.Struct, frozen=True):
    """What one row came to for one proxy."""

    proxy: str
    row: str
    load: LoadReport | None = None
    cannot: str = ""
    """Why there is nothing to measure."""

    @property
    def cell(self) -> str:
        if self.load is None:
            return f"– ({self.cannot})"
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.load.lost.items()))
        return f"{self.load.failures}" + (f" ({kinds})" if kinds else "")


async def measure(stage: Stage, deed: Callable[[Stage], None], rate: float) -> LoadReport:
    """Load the proxy while the deed is done. Raises whatever the deed raises, once the load has ended."""
    settings = LoadSettings(port=stage.peer.port, rate=rate, upload_bytes=4_096, cycle=CYCLE)
    load = Load(settings)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(load.run(1, until=over), name="load")
        try:
            await asyncio.sleep(BEFORE_S)
            await asyncio.to_thread(deed, stage)
            await asyncio.sleep(AFTER_S)
        finally:
            over.set()
    return loading.result()


def try_row(name: str, make: Callable[[Path], Peer], folder: Path, row: str, rate: float) -> Outcome:
    """Start a proxy anew and do one row's deed to it."""
    stage = Stage(make(folder), folder)
    load: LoadReport | None = None
    cannot = ""
    try:
        stage.start()
        load = asyncio.run(measure(stage, ROWS[row], rate))
    except* (Unsupported, RuntimeError, TimeoutError, OSError) as failure:
        cannot = " ".join("; ".join(str(each) for each in failure.exceptions).split())[:160]
    finally:
        stage.close()
    return Outcome(name, row, load, cannot)


def contestants(only: str) -> dict[str, tuple[Callable[[Path], Peer], str]]:
    """Return how to make each proxy, and its version, by name. Says which are not installed."""
    found: dict[str, tuple[Callable[[Path], Peer], str]] = {}
    wanted = [name for name in ("gateway", *PEERS) if not only or name in only.split(",")]
    for name in wanted:
        if name == "gateway":
            found[name] = (lambda folder: Gateway("gateway", sys.executable, folder)), ""
        elif (program := program_of(name)) is None:
            print(f"not installed, left out: {name}")
        else:
            found[name] = (maker(name, program)), version_of(program, *VERSIONS[name])
    return found


def maker(name: str, program: str) -> Callable[[Path], Peer]:
    return lambda folder: PEERS[name](name, program, folder)


def version_of(program: str, *flags: str) -> str:
    """Return the first line in which a program names a number: its version."""
    said = subprocess.run((program, *flags), capture_output=True, text=True, timeout=30, check=False)
    lines = [line for line in (said.stdout + said.stderr).splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip() if lines else "unknown"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    proxies = contestants(options.only)
    rows = [row for row in ROWS if not options.rows or any(part in row for part in options.rows.split(","))]
    outcomes: list[Outcome] = []
    with workspace() as folder:
        for row in rows:
            for name, (make, _) in proxies.items():
                place = subfolder(folder, f"{name}-{len(outcomes)}")
                outcome = try_row(name, make, place, row, options.rate)
                outcomes.append(outcome)
                print(f"{row}, {name}: {outcome.cell}", flush=True)
                for example in outcome.load.examples[:3] if outcome.load else ():
                    print(f"    {example}")
    print("\n" + report.table(*table(outcomes, list(proxies), rows)))
    for name, (_, version) in proxies.items():
        print(f"{name}: {version}" if version else f"{name}: this one")
    report.save("hitless", {"options": vars(options), "outcomes": msgspec.to_builtins(outcomes)})
    ours = [outcome for outcome in outcomes if outcome.proxy == "gateway"]
    return 0 if all(outcome.load is not None and not outcome.load.failures for outcome in ours) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench hitless", description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second")
    parser.add_argument("--only", default="", help="comma-separated names of proxies")
    parser.add_argument("--rows", default="", help="comma-separated parts of row names")
    return parser.parse_args(arguments)


def table(outcomes: list[Outcome], names: list[str], rows: list[str]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows: requests lost, a column a proxy."""
    cells = {(outcome.row, outcome.proxy): outcome.cell for outcome in outcomes}
    return ["requests lost", *names], [[row, *(cells[row, name] for name in names)] for row in rows]
