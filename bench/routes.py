"""CPU per request of the gateway against the number of its routes and of a service's versions.

The request asks for the last route; the table should make that cost what the first one costs.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.peers import gateway, gateway_service, interleaved, running, workspace
from bench.procs import ServerProcess, cpu_ns
from bench.wrk import run_wrk

BASE: Final = "1 route, 1 version"


class Case(msgspec.Struct, frozen=True):
    """What is configured, and which path is asked for."""

    services: Callable[[int], str]
    """The upstream's port -> TOML."""
    path: str


def with_routes(count: int) -> Case:
    """Return a service with `count` routes, asked for by the last."""
    paths = [f"/api/v1/resource-{k}/items" for k in range(count)]
    return Case(partial(gateway_service, routes=paths), f"{paths[-1]}/1")


CASES: Final = {
    BASE: with_routes(1),
    "100 routes": with_routes(100),
    "10,000 routes": with_routes(10_000),
    "100 versions": Case(partial(gateway_service, versions=100), "/"),
}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    starts = {name: gateway(services=case.services, path=case.path) for name, case in CASES.items()}
    rounds: dict[str, list[float]] = {name: [] for name in CASES}
    with workspace() as folder, running(starts, folder) as servers:
        for name, server in interleaved(servers, 1):
            measure(server, CASES[name].path, 1, folder)
        for name, server in interleaved(servers, options.rounds):
            rounds[name].append(measure(server, CASES[name].path, options.seconds, folder))
    medians = {name: report.median(values) for name, values in rounds.items()}
    ratios = {
        name: report.median([own / base for own, base in zip(values, rounds[BASE], strict=True)])
        for name, values in rounds.items()
    }
    head = ["the gateway with", "CPU µs/request", "× the first"]
    print(report.table(head, [[name, f"{medians[name]:.1f}", f"{ratios[name]:.2f}"] for name in medians]))
    report.save("routes", {"options": vars(options), "medians": medians, "ratios": ratios, "rounds": rounds})
    report.save_bars("routes", "CPU µs per request", list(medians), {"µs": list(medians.values())})
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench routes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    return parser.parse_args(arguments)


def measure(server: ServerProcess, path: str, seconds: int, folder: Path) -> float:
    """Return the CPU µs per request of one run. Raises SystemExit when a request failed."""
    pids = server.pids()
    before = cpu_ns(pids)
    run = run_wrk(server.port, seconds=seconds, connections=64, folder=folder, path=path)
    if run.errors:
        raise SystemExit(f"{run.errors} of {run.requests} requests failed\n{server.log_tail()}")
    return (cpu_ns(pids) - before) / 1000 / run.requests
