"""Latency at a fixed rate of requests, beside the peers, in interleaved rounds.

h2load sends each of its connections' requests by the clock and logs every one. Without h2load the load of
this package does, at a rate it can hold. Ratios to HAProxy are taken within a round, then their median.
"""

import argparse
import asyncio
import subprocess
from pathlib import Path

from bench import report
from bench.load import KEPT, Load, LoadSettings
from bench.peers import contestants, interleaved, running, workspace
from bench.procs import find_program

OWN_RATE = 1_500
"""Requests per second the load of this package holds without being what is measured."""
QUANTILES = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    h2load = find_program("h2load")
    if h2load is None:
        options.rate = min(options.rate, OWN_RATE)
        print(f"h2load is not installed (nghttp2-client): own load at {options.rate} requests/s\n")
    starts = contestants(options.only)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in starts}
    with workspace() as folder, running(starts, folder) as servers:
        for name, server in interleaved(servers, options.rounds):
            rounds[name].append(quantiles(measure(h2load, server.port, options, folder)))
    medians = summarise(rounds)
    print(f"medians of {options.rounds} rounds of {options.seconds} s at {options.rate} requests/s\n")
    print(report.table(*rows(medians)))
    report.save("latency", {"options": vars(options), "medians": medians, "rounds": rounds})
    bars = {key.replace("_us", " µs"): [row[key] for row in medians.values()] for key in QUANTILES}
    report.save_bars("latency", f"Latency at {options.rate} requests/s (less is better)", list(medians), bars)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench latency", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=8_000, help="requests per second")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", default="", help="comma-separated names of the servers to run")
    return parser.parse_args(arguments)


def measure(h2load: str | None, port: int, options: argparse.Namespace, folder: Path) -> list[float]:
    """Return the latency of every request of one run, in µs. Raises SystemExit when one failed."""
    if h2load is None:
        return measure_own(port, options)
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = [h2load, "--h1", "-t1", f"-c{options.connections}", f"-D{options.seconds}"]
    command += [
        f"--rps={options.rate / options.connections}",
        f"--log-file={log}",
        f"http://127.0.0.1:{port}/",
    ]
    subprocess.run(command, check=True, capture_output=True)
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    if failed or len(lines) < options.rate * options.seconds * 0.9:
        raise SystemExit(f"port {port}: {len(lines)} requests, {len(failed)} of them failed: no fixed rate")
    return [float(line[2]) for line in lines]


def measure_own(port: int, options: argparse.Namespace) -> list[float]:
    load = Load(LoadSettings(port=port, rate=options.rate, connections=options.connections, cycle=(KEPT,)))
    result = asyncio.run(load.run(options.rate * options.seconds))
    if result.failures:
        raise SystemExit(f"port {port}: {result.failures} requests failed: {result.examples}")
    return [latency * 1000 for latency in load.latencies_ms]


def quantiles(latencies: list[float]) -> dict[str, float]:
    """Return the values of QUANTILES."""
    ordered = sorted(latencies)
    return {name: ordered[int(len(ordered) * part)] for name, part in QUANTILES.items()}


def summarise(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return each server's median quantiles, and the median of their per-round ratios to HAProxy."""
    summary = {}
    for name, own in rounds.items():
        summary[name] = {key: report.median([one[key] for one in own]) for key in QUANTILES}
        if peer := rounds.get("haproxy"):
            for key in QUANTILES:
                ratios = [one[key] / other[key] for one, other in zip(own, peer, strict=True)]
                summary[name][f"{key}_to_haproxy"] = report.median(ratios)
    return summary


def rows(medians: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table."""
    head = ["server", "p50 µs", "p99 µs", "p99.9 µs", "p50 × HAProxy", "p99 × HAProxy", "p99.9 × HAProxy"]
    body = []
    for name, row in medians.items():
        ratios = [
            f"{row[f'{key}_to_haproxy']:.2f}" if f"{key}_to_haproxy" in row else "-" for key in QUANTILES
        ]
        body.append([name, *(f"{row[key]:.0f}" for key in QUANTILES), *ratios])
    return head, body
