"""CPU per request, requests/s and latency of the gateway and its peers, in interleaved rounds.

Every round loads each server for the same time, one after the other in an order that turns each round,
so that a slow minute of the machine falls on all. Ratios are taken within a round, then their median.
"""

import argparse
from pathlib import Path
from typing import Final

from bench import report
from bench.peers import (
    Servers,
    check_duties,
    contestants,
    gateway,
    interleaved,
    running,
    subfolder,
    workspace,
)
from bench.procs import ServerProcess, cpu_ns
from bench.wrk import run_wrk

BROWSER_FIELDS: Final = (
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126 Safari/537.36",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    ),
    ("Accept-Language", "en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop.example.com/catalogue/garden/chairs?page=3&sort=price&colour=green"),
    (
        "Cookie",
        "session=4f8c2b1e9a7d4c0fb3e6a5d2c1b0f9e8; uid=8842117; theme=dark; consent=all; "
        "_ga=GA1.2.1234567890.1700000000; _cart=97f3aa10",
    ),
    ("Cache-Control", "max-age=0"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Upgrade-Insecure-Requests", "1"),
)
"""What a browser sends with a page load: ten fields, about 800 bytes with the request line and Host."""
PROFILES: Final = {"small": (), "browser": BROWSER_FIELDS, "varied": BROWSER_FIELDS}
VARIED: Final = "varied"
"""The browser's fields, but no two heads alike: path, query, User-Agent and Cookie differ from one request
to the next, ETag and X-Request-ID from one response to the next. The gateway does not read again a head that
equals its connection's last one, which the other two profiles always do: they are its best case."""
WITH_LOG: Final = "gateway with JSON log"

Rounds = dict[str, dict[str, list[float]]]
"""Server -> measure -> its value in each round."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    starts = contestants(options.only, **{WITH_LOG: gateway(access_log=True)})
    with workspace() as folder:
        with running(starts, subfolder(folder, "duties"), own_upstream=True) as servers:
            for name, server in servers.items():
                if lacking := check_duties(server):
                    print(f"note: {name} does not add {', '.join(lacking)}")
        with running(starts, subfolder(folder, "load")) as servers:
            results = {profile: measure(profile, servers, options, folder) for profile in options.profiles}
    summaries = {profile: summarise(rounds) for profile, rounds in results.items()}
    for profile, summary in summaries.items():
        rounds = f"{options.rounds} rounds of {options.seconds} s"
        print(f"\n{profile}: medians of {rounds}, {options.connections} connections\n")
        print(report.table(*rows(summary)))
    report.save("proxy", {"options": vars(options), "medians": summaries, "rounds": results})
    print("\nAs one table\n")
    print(report.table(*side_by_side(summaries)))
    bars = {profile: [summary[name]["cpu_us"] for name in starts] for profile, summary in summaries.items()}
    report.save_bars("proxy", "CPU µs per proxied request (less is better)", list(starts), bars)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench proxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="load per server, profile and round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", default="", help="comma-separated names of the servers to run")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    return parser.parse_args(arguments)


def measure(profile: str, servers: Servers, options: argparse.Namespace, folder: Path) -> Rounds:
    """Run all rounds of one profile."""
    results: Rounds = {
        name: {"cpu_us": [], "requests_per_s": [], "p50_us": [], "p99_us": []} for name in servers
    }
    fields = PROFILES[profile]
    for server in servers.values():
        run_wrk(
            server.port,
            seconds=1,
            connections=options.connections,
            folder=folder,
            fields=fields,
            vary=profile == VARIED,
        )
    for name, server in interleaved(servers, options.rounds):
        for key, value in once(profile, server, options, folder).items():
            results[name][key].append(value)
    return results


def once(profile: str, server: ServerProcess, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Load one server once. Raises SystemExit when a request failed: the figures would mean nothing."""
    pids = server.pids()
    before = cpu_ns(pids)
    run = run_wrk(
        server.port,
        seconds=options.seconds,
        connections=options.connections,
        folder=folder,
        fields=PROFILES[profile],
        vary=profile == VARIED,
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


def summarise(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return each server's medians, and the median of its per-round CPU ratios to HAProxy and Caddy."""
    summary = {
        name: {key: report.median(values) for key, values in server.items()}
        for name, server in rounds.items()
    }
    for name, server in rounds.items():
        for peer in ("haproxy", "caddy"):
            if peer in rounds:
                pairs = zip(server["cpu_us"], rounds[peer]["cpu_us"], strict=True)
                summary[name][f"cpu_to_{peer}"] = report.median([own / other for own, other in pairs])
    return summary


def rows(summary: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table."""
    head = ["server", "CPU µs/request", "× HAProxy", "× Caddy", "requests/s", "p50 µs", "p99 µs"]
    body = [
        [
            name,
            f"{row['cpu_us']:.1f}",
            f"{row['cpu_to_haproxy']:.2f}" if "cpu_to_haproxy" in row else "-",
            f"{row['cpu_to_caddy']:.2f}" if "cpu_to_caddy" in row else "-",
            f"{row['requests_per_s']:.0f}",
            f"{row['p50_us']:.0f}",
            f"{row['p99_us']:.0f}",
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
