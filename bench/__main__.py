"""`python -m bench NAME [options]`: run one of the measurements."""

import importlib
import signal
import sys
from collections.abc import Callable
from typing import Final

MEASUREMENTS: Final = {
    "proxy": "CPU per request, requests/s and latency beside nginx, HAProxy and Caddy",
    "path": "CPU per request of the data plane alone, without sockets",
    "observing": "what counting, the access log and traces add to a request; how long a scrape takes",
    "latency": "p50, p99 and p99.9 at a fixed rate of requests",
    "bodies": "rate of 1 GB down and up, and memory with a slow reader",
    "idle": "bytes of memory per idle client connection",
    "churn": "memory while client connections come and go",
    "routes": "CPU per request against the number of routes and of versions",
    "differential": "the same odd requests to nginx, HAProxy and the gateway: who takes what",
    "hitless": "requests lost beside other proxies: switch, reload, upgrade, endpoint killed",
    "faults": "requests lost while versions, workers and the gateway itself come and go",
    "picture": "no measurement: records the picture of the README, a release rolled back",
    "dashboard": "long tasks of the dashboard in Chromium with 200 services",
    "screenshots": "no measurement: pictures of the dashboard's pages, in the folder named",
    "admin": "proxied requests beside 500 writes a second to the admin API, and what a write costs",
    "probes": "CPU of the control process while it probes 1,000 endpoints",
    "rollouts": "CPU of the control process with 200 rollouts, and how soon new weights are live",
    "breakers": "how soon a breaker that opens in one worker is known to the others",
    "judge": "false rollbacks and time to catch, simulated on the real judge",
}


def main() -> int:
    """Run the measurement the first argument names. Returns its exit code, 2 for an unknown name.

    A TERM ends it as an error would: whatever it has started ends too.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in MEASUREMENTS:
        print("usage: python -m bench NAME [options]\n")
        for known, does in MEASUREMENTS.items():
            print(f"  {known:12} {does}")
        return 0 if name in ("-h", "--help") else 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    run: Callable[[list[str]], int | None] = importlib.import_module(f"bench.{name}").main
    return run(sys.argv[2:]) or 0


if __name__ == "__main__":
    sys.exit(main())
