"""Memory of a server while client connections come and go: flat, unless each leaves something behind.

Every connection carries one request and ends with its answer. Looked at after each round is the proportional
set size of the server's processes; the first round is left to buffers that are made once.
"""

import argparse
from pathlib import Path

from bench import report
from bench.peers import contestants, running, workspace
from bench.procs import ServerProcess, memory_bytes
from bench.profiles import profile
from bench.wrk import run_wrk, write_requests

Seen = list[tuple[int, int]]
"""(connections so far, bytes of memory), after each round."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    requests = [closing(each) for each in profile("browser").requests]
    with workspace() as folder, running(contestants(options.only), folder) as servers:
        path = write_requests(requests, folder / "requests")
        results = {name: churn(server, options, path) for name, server in servers.items()}
    head = ["server", "connections", "MB after the first round", "at the end", "bytes per connection"]
    print(report.table(head, [[name, *row(seen)] for name, seen in results.items()]))
    report.save("churn", {"options": vars(options), "seen": results})
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench churn", description=__doc__)
    parser.add_argument("--connections", type=int, default=1_000_000, help="in all, at least")
    parser.add_argument("--seconds", type=int, default=5, help="of one round")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--only", default="gateway", help="comma-separated names of the servers to run")
    return parser.parse_args(arguments)


def closing(request: bytes) -> bytes:
    """Return the request as the last of its connection."""
    line, end, rest = request.partition(b"\r\n")
    return line + end + b"Connection: close\r\n" + rest


def churn(server: ServerProcess, options: argparse.Namespace, requests: Path) -> Seen:
    """Let connections come and go until they are enough. Raises SystemExit if requests fail."""
    seen: Seen = []
    count = 0
    while count < options.connections or len(seen) < 2:
        run = run_wrk(
            server.port,
            seconds=options.seconds,
            connections=options.at_once,
            folder=requests.parent,
            requests=requests,
        )
        if run.errors or not run.requests:
            raise SystemExit(f"{server.name}: {run.errors} of {run.requests} requests failed")
        count += run.requests
        seen.append((count, memory_bytes(server.pids())))
    return seen


def row(seen: Seen) -> list[str]:
    (first, before), (count, after) = seen[0], seen[-1]
    grown = (after - before) / (count - first)
    return [str(count), f"{before / 1e6:.1f}", f"{after / 1e6:.1f}", f"{grown:.2f}"]
