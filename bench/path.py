"""CPU per request of the data plane alone: in one process, without sockets.

Real client and upstream connections, a real table, and transports that only take what is written. What is
left is what the gateway's own code spends on a request; the kernel's part is in `bench proxy`.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Final

import msgspec

from bench import report
from bench.profiles import PROFILES, profile
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.http1.client import UpstreamConnection
from gateway.link.snapshot import EndpointSnap, ProxySettings, ServiceSnap, Snapshot, VersionSnap
from gateway.worker.plane import Plane
from gateway.worker.pool import Pool

ANSWERS: Final = 997
"""Different responses."""


class Sunk(asyncio.Transport):
    """A transport whose bytes go nowhere, at the price of one C call: what writing costs is not measured."""

    def __init__(self) -> None:
        super().__init__()
        self.written = deque[bytes](maxlen=1)
        """What was written last."""
        self.write = self.written.append  # type: ignore[assignment,method-assign]

    def abort(self) -> None:
        """Nothing to cut."""

    def pause_reading(self) -> None:
        """Nothing to pause."""


class Bare:
    """A client connection of a real plane, and the idle connection to its upstream it will find."""

    def __init__(self, versions: int = 1, *, proxy: ProxySettings | None = None) -> None:
        """proxy: other settings than the defaults."""
        self.plane = Plane(seed=1)
        self.plane.apply(snapshot(versions, proxy or ProxySettings()))
        self.client = self.plane.factory()()
        self.client.accepted("127.0.0.1", lambda: None)
        self.client_side = Sunk()
        self.client.connection_made(self.client_side)
        self.upstreams = {}
        for endpoint in self.plane.live_table.current.services["bench"].endpoints():
            pool = endpoint.pool
            assert isinstance(pool, Pool)
            upstream = UpstreamConnection(pool)
            upstream.connection_made(Sunk())
            pool.give_back(upstream, time.monotonic() + 3600)
            self.upstreams[endpoint] = upstream

    def serve(self, requests: Iterator[bytes], answers: Iterator[bytes], count: int) -> float:
        """Carry `count` requests. Returns the CPU time of one, in µs."""
        client, exchange = self.client.data_received, self.client.handler
        next_request, next_answer = requests.__next__, answers.__next__
        began = time.thread_time_ns()
        for _ in range(count):
            client(next_request())
            exchange.attempt.upstream.data_received(next_answer())  # type: ignore[attr-defined]
        return (time.thread_time_ns() - began) / 1000 / count


def snapshot(versions: int, proxy: ProxySettings) -> Snapshot:
    """Return a table of one service with default policies and so many equal versions."""
    service = ServiceSnap(
        id="bench",
        name="bench",
        generation=1,
        settings=ServiceSettings(routes=(RouteSettings(path="/"),)),
        current="v0",
        versions=tuple(
            VersionSnap(
                id=f"v{k}",
                name=f"v{k}",
                weight=1,
                active=True,
                endpoints=(EndpointSnap(key=f"v{k}", url="http://127.0.0.1:9", address="127.0.0.1", port=9),),
            )
            for k in range(versions)
        ),
    )
    return Snapshot(number=1, whole=True, services={"bench": service}, proxy=proxy)


def answers_of(*, vary: bool) -> list[bytes]:
    """Return responses; those that vary do so in Date, ETag and X-Request-ID."""
    return [
        (
            f"HTTP/1.1 200 OK\r\nServer: app\r\nDate: Mon, 01 Jan 2024 00:{k // 60:02}:{k % 60:02} GMT\r\n"
            "Content-Type: application/json\r\nContent-Length: 97\r\nConnection: keep-alive\r\n"
            f'ETag: "{k * 104_729:08x}"\r\nX-Request-ID: {k * 15_485_863:016x}\r\n\r\n{"x" * 97}'
        ).encode()
        for k in range(ANSWERS if vary else 1)
    ]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if not options.log:
        return show(options, ProxySettings())
    with tempfile.TemporaryDirectory() as folder:
        log = ProxySettings(access_log_format=options.log, access_log_path=f"{folder}/log")
        return asyncio.run(logged(options, log))


async def logged(options: argparse.Namespace, proxy: ProxySettings) -> int:
    """Do the same on a loop: the log has a timer."""
    return show(options, proxy)


def show(options: argparse.Namespace, proxy: ProxySettings) -> int:
    runs = {name: runner(name, proxy) for name in options.profiles}
    costs: dict[str, list[float]] = {name: [] for name in runs}
    profiler = cProfile.Profile()
    for _ in range(options.rounds):
        for name, run in runs.items():
            if options.profile:
                profiler.enable()
            costs[name].append(run(options.requests))
            profiler.disable()
    rows = [[name, f"{report.median(values):.1f}", f"{min(values):.1f}"] for name, values in costs.items()]
    print(f"CPU µs per request without sockets, {options.rounds} rounds\n")
    print(report.table(["profile", "median", "least"], rows))
    if options.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return 0


def runner(name: str, proxy: ProxySettings) -> Callable[[int], float]:
    """Return what carries a number of requests of a profile and tells what one cost."""
    chosen = profile(name)
    trusted: tuple[tuple[str, ...], ...] = (("127.0.0.0/8",),) if chosen.is_trusted else ()
    bare = Bare(proxy=msgspec.structs.replace(proxy, trusted_proxies=trusted))
    requests, answers = cycle(chosen.requests), cycle(answers_of(vary=name != "repeats"))
    return lambda count: bare.serve(requests, answers, count)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench path", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=5_000, help="per profile and round")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--log", choices=("json", "combined"), help="write the access log, to a file")
    parser.add_argument("--profile", action="store_true", help="print where the time goes (cProfile)")
    return parser.parse_args(arguments)
