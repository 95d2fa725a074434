"""CPU per request, requests/s and latency of the gateway and its peers, in interleaved rounds.

Every round loads each server for the same time, one after the other in an order that turns each round,
so that a slow minute of the machine falls on all. Ratios are taken within a round, then their median. A pass
starts all servers anew: what one start does to memory and caches does not decide. Closed loop by default, and
with --rates also at so many requests/s, where nobody waits in a queue.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench import report
from bench.peers import (
    Servers,
    Start,
    check_duties,
    contestants,
    gateway,
    interleaved,
    running,
    subfolder,
    workspace,
)
from bench.procs import FROM_HERE, ServerProcess, cpu_ns
from bench.profiles import PROFILES, Profile, profile
from bench.wrk import run_wrk, write_requests

WITH_LOG: Final = "gateway with JSON log"
PLAIN: Final = "gateway in plain Python"

Rounds = dict[str, dict[str, list[float]]]
"""Server -> measure -> its value in each round."""


class Load(msgspec.Struct, frozen=True):
    """What is measured at once: a profile, closed loop or at a rate."""

    name: str
    profile: Profile
    rate: int
    """Requests per second; 0: closed loop."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    loads = [
        Load(name if not rate else f"{name} at {rate}/s", profile(name), rate)
        for name in options.profiles
        for rate in options.rates
    ]
    print(f"compiled of the gateway: {native_form()}\n")
    results: dict[str, Rounds] = {}
    with workspace() as folder:
        say_duties(options, folder)
        for number in range(options.passes):
            for is_trusted in (False, True):
                chosen = [load for load in loads if load.profile.is_trusted == is_trusted]
                if not chosen:
                    continue
                place = subfolder(folder, f"pass-{number}-{is_trusted}")
                with running(forms(options, is_trusted=is_trusted), place) as servers:
                    for load in chosen:
                        add(results.setdefault(load.name, {}), measure(load, servers, options, folder))
    publish(results, options)
    return 0


def native_form() -> str:
    """Return what of the gateway under measurement is compiled: `all`, the head `codec` alone, or `none`."""
    command = [sys.executable, "-c", "from gateway.http1.form import native_form; print(native_form())"]
    with tempfile.TemporaryDirectory() as folder:  # the folder one stands in comes first otherwise
        run = subprocess.run(
            command, cwd=folder, env={**os.environ, **FROM_HERE}, check=True, capture_output=True
        )
    return run.stdout.decode().strip()


def forms(options: argparse.Namespace, *, is_trusted: bool) -> dict[str, Start]:
    """Return what is measured: the gateway and its further forms, and the peers that are installed."""
    further = {
        WITH_LOG: gateway(access_log=True, trusts=is_trusted),
        PLAIN: gateway(trusts=is_trusted, env={"GATEWAY_NO_NATIVE": "1"}),
    }
    return contestants(options.only, trusts=is_trusted, **further)


def say_duties(options: argparse.Namespace, folder: Path) -> None:
    """Say what a server does not add that the others do."""
    starts = forms(options, is_trusted=False)
    with running(starts, subfolder(folder, "duties"), own_upstream=True) as servers:
        for name, server in servers.items():
            if lacking := check_duties(server):
                print(f"note: {name} does not add {', '.join(lacking)}")


def publish(results: dict[str, Rounds], options: argparse.Namespace) -> None:
    summaries = {name: summarise(rounds) for name, rounds in results.items()}
    for name, summary in summaries.items():
        rounds = f"{options.passes} × {options.rounds} rounds of {options.seconds} s"
        print(f"\n{name}: medians of {rounds}, {options.connections} connections\n")
        print(report.table(*rows(summary)))
    report.save("proxy", {"options": vars(options), "medians": summaries, "rounds": results})
    print("\nAs one table\n")
    print(report.table(*side_by_side(summaries)))
    names = list(next(iter(summaries.values())))
    bars = {
        load: [summary[name]["cpu_us"] for name in names]
        for load, summary in summaries.items()
        if " at " not in load
    }
    report.save_bars("proxy", "CPU µs per proxied request (less is better)", names, bars)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench proxy", description=__doc__)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="load per server, profile and round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", default="", help="comma-separated names of the servers to run")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--rates", nargs="+", type=int, default=[0], help="requests/s; 0: closed loop")
    return parser.parse_args(arguments)


def measure(load: Load, servers: Servers, options: argparse.Namespace, folder: Path) -> Rounds:
    """Run all rounds of one load."""
    results: Rounds = {
        name: {"cpu_us": [], "requests_per_s": [], "p50_us": [], "p99_us": []} for name in servers
    }
    requests = write_requests(load.profile.requests, folder / "requests")
    for server in servers.values():
        once(load, server, 1, options, requests)
    for name, server in interleaved(servers, options.rounds):
        for key, value in once(load, server, options.seconds, options, requests).items():
            results[name][key].append(value)
    return results


def once(
    load: Load, server: ServerProcess, seconds: int, options: argparse.Namespace, requests: Path
) -> dict[str, float]:
    """Load one server once. Raises SystemExit when a request failed: the figures would mean nothing."""
    pids = server.pids()
    before = cpu_ns(pids)
    run = run_wrk(
        server.port,
        seconds=seconds,
        connections=options.connections,
        folder=requests.parent,
        requests=requests,
        rate=load.rate,
    )
    spent = cpu_ns(pids) - before
    if run.errors:
        raise SystemExit(
            f"{server.name}: {run.errors} of {run.requests} requests failed\n{server.log_tail()}"
        )
    return {
        "cpu_us": spent / 1000 / run.requests,
        "requests_per_s": run.requests_per_s,
        "p50_us": float(run.p50_us),
        "p99_us": float(run.p99_us),
    }


def add(total: Rounds, more: Rounds) -> None:
    """Add the rounds of one pass to those before it."""
    for name, server in more.items():
        for key, values in server.items():
            total.setdefault(name, {}).setdefault(key, []).extend(values)


def summarise(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return each server's medians, and the medians of its per-round ratios to HAProxy and Caddy."""
    summary = {
        name: {key: report.median(values) for key, values in server.items()}
        for name, server in rounds.items()
    }
    for name, server in rounds.items():
        for peer in ("haproxy", "caddy"):
            if peer in rounds:
                pairs = zip(server["cpu_us"], rounds[peer]["cpu_us"], strict=True)
                summary[name][f"cpu_to_{peer}"] = report.median([own / other for own, other in pairs])
        if "haproxy" in rounds:
            pairs = zip(server["p99_us"], rounds["haproxy"]["p99_us"], strict=True)
            summary[name]["p99_to_haproxy"] = report.median([own / other for own, other in pairs])
    return summary


def rows(summary: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table."""
    head = [
        "server",
        "CPU µs/request",
        "× HAProxy",
        "× Caddy",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "p99 × HAProxy",
    ]
    body = [
        [
            name,
            f"{row['cpu_us']:.1f}",
            f"{row['cpu_to_haproxy']:.2f}" if "cpu_to_haproxy" in row else "-",
            f"{row['cpu_to_caddy']:.2f}" if "cpu_to_caddy" in row else "-",
            f"{row['requests_per_s']:.0f}",
            f"{row['p50_us']:.0f}",
            f"{row['p99_us']:.0f}",
            f"{row['p99_to_haproxy']:.2f}" if "p99_to_haproxy" in row else "-",
        ]
        for name, row in summary.items()
    ]
    return head, body


def side_by_side(summaries: dict[str, dict[str, dict[str, float]]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of one table of all profiles: CPU, and its ratio to HAProxy's."""
    head = ["CPU µs per request (× HAProxy)", *summaries]
    names = next(iter(summaries.values()))
    return head, [[name, *(cell(summary[name]) for summary in summaries.values())] for name in names]


def cell(row: dict[str, float]) -> str:
    ratio = row.get("cpu_to_haproxy")
    return f"{row['cpu_us']:.1f}" + (f" ({ratio:.2f})" if ratio is not None else "")
