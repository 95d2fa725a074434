"""What watching costs: counts, the access log and traces by request, and a scrape of many versions.

By request: CPU in one process without sockets, as `bench path` measures it, in interleaved rounds; what the
log's thread does is in it. Counting alone is timed by itself. A scrape: what `/metrics` is made of, for
versions that have all been asked, with four workers.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace as Fake
from typing import Any, Final

from bench import report
from bench.path import Bare, answers_of
from bench.profiles import PROFILES, profile
from gateway.admin.metrics import Metrics
from gateway.control.tally import Tally
from gateway.core.settings.observing import LogFilter
from gateway.link.counts import VersionCounts, totals_of
from gateway.link.messages import Counts
from gateway.link.snapshot import ProxySettings

FORMS: Final[dict[str, dict[str, Any]]] = {
    "nothing": {},
    "traces, 1 % sampled": {"trace_sample": 1.0},
    "traces, all sampled": {"trace_sample": 100.0},
    "log, JSON": {"access_log_format": "json"},
    "log, combined": {"access_log_format": "combined"},
    "log, only 5xx": {"access_log_format": "json", "access_log_only": LogFilter(status="500-599")},
    "id and timing told": {"trace_expose": ("request_id", "server_timing")},
}
REPORT: Final = 200
"""Requests between two reports: 100 ms at 2,000 a second."""
WORKERS: Final = 4


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    rows = asyncio.run(by_request(options.profile, options.rounds, options.requests))
    print(f"CPU µs per request without sockets, profile {options.profile}, {options.rounds} rounds\n")
    print(report.table(["with", "median", "more than nothing"], rows))
    print(f"\ncounting alone: {counting():.2f} µs a request")
    milliseconds, size = asyncio.run(scrape(200, 3))
    print(f"a scrape of 200 services with 3 versions each: {milliseconds:.0f} ms, {size / 1e6:.1f} MB")
    return 0


async def by_request(name: str, rounds: int, count: int) -> list[list[str]]:
    """Return a row for each of FORMS. Needs a loop: the log has a timer."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {form: runner(name, form, Path(folder)) for form in FORMS}
        costs: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(rounds):
            for form, run in runs.items():
                costs[form].append(run(count))
                await asyncio.sleep(0)
    least = report.median(costs["nothing"])
    return [
        [form, f"{(median := report.median(values)):.2f}", f"{(median / least - 1) * 100:+.1f} %"]
        for form, values in costs.items()
    ]


def runner(name: str, form: str, folder: Path) -> Callable[[int], float]:
    """Return what carries a number of requests and tells what one cost."""
    settings = FORMS[form]
    if "access_log_format" in settings:
        settings = settings | {"access_log_path": str(folder / form.replace(" ", "-"))}
    requests, answers = cycle(profile(name).requests), cycle(answers_of(vary=True))

    def run(count: int) -> float:
        bare = Bare(proxy=ProxySettings(**settings))  # its connections would be too old for another round
        began = time.process_time_ns()
        for _ in range(count // REPORT):
            carry(bare, requests, answers)
        bare.plane.context.log_file.close()
        return (time.process_time_ns() - began) / 1000 / (count // REPORT * REPORT)

    return run


def carry(bare: Bare, requests: Iterator[bytes], answers: Iterator[bytes]) -> None:
    """Carry as many requests as there are between two reports, and make the report."""
    bare.serve(requests, answers, REPORT)
    for counts in bare.plane.live_table.counts.values():
        totals_of(counts)
    bare.plane.context.spans.take()


def counting(count: int = 200_000) -> float:
    """Return what counting an answer costs, in µs."""
    counts, best = VersionCounts("s", "v", "id"), float("inf")
    for _ in range(5):
        began = time.process_time_ns()
        for us in range(count):
            counts.answer("GET", 200, 400 + us % 5_000, 300 + us % 5_000, 1, 10_000)
        best = min(best, (time.process_time_ns() - began) / 1000 / count)
        totals_of(counts)
    return best


async def scrape(services: int, versions: int, rounds: int = 5) -> tuple[float, int]:
    """Return how long `/metrics` takes to make, the best of some, in ms, and its bytes."""
    metrics = Metrics(
        catalog=catalog(services, versions),
        tally=tally(services, versions),
        hub=Fake(apply_us={}, workers=list),  # type: ignore[arg-type]
        store=Fake(epoch=1, deployments=no_deployments),
        restarts={},
        unready=lambda: None,
        watch=Fake(problem="", audit=Fake(ok=True, reason="")),
        expiries=dict,
        is_reloaded=lambda: True,
        release="bench",
    )
    best, text = float("inf"), b""
    for _ in range(rounds):
        began = time.process_time()
        text = await metrics.exposition()
        best = min(best, time.process_time() - began)
    return best * 1000, len(text)


async def no_deployments(limit: int) -> Any:
    return Fake(items=[])


def catalog(services: int, versions: int) -> Any:
    """Return what metrics need of a catalog with so many versions."""
    made = {}
    for service in range(services):
        name = f"service-{service}"
        found = {}
        for number in range(versions):
            endpoint = Fake(name="127.0.0.1:1", breaker=Fake(state="CLOSED"), is_healthy=True, draining=False)
            record = Fake(
                id=f"{name}-{number}",
                service_name=name,
                version=f"v{number}",
                weight=100,
                health_status="healthy",
                is_active=True,
                status="production",
            )
            found[record.id] = Fake(record=record, endpoints={"e": endpoint})
        made[name] = Fake(record=Fake(name=name), versions=found)
    return Fake(services=made, shares=lambda name: dict.fromkeys(made[name].versions, 33.3))


def tally(services: int, versions: int) -> Tally:
    """Return the counts of some workers at which each version was asked."""
    summed = Tally()
    for worker in range(WORKERS):
        reports = []
        for service in range(services):
            for number in range(versions):
                name = f"service-{service}"
                counts = VersionCounts(name, f"v{number}", f"{name}-{number}")
                for us in range(100, 100_000, 5_000):
                    counts.answer("GET", 200, us, us // 2, 1, 3_333)
                counts.request("POST", 503, 900, 800)
                reports.append(totals_of(counts))
        summed.on_counts(worker, f"worker-{worker}", Counts(versions=tuple(reports)))
    return summed


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench observing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=4_000, help="per form and round")
    parser.add_argument("--profile", choices=list(PROFILES), default="browser")
    return parser.parse_args(arguments)
