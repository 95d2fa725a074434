"""An open-loop load: requests leave at a constant rate, whatever becomes of the ones before.

Latency counts from the moment a request was due, so a stall shows in every request it delayed. Kept
connections, new connections and uploads are mixed in a fixed cycle. Nothing is retried: what a client would
have noticed counts.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Coroutine
from typing import Final

import msgspec

from bench.client import Answer, Connection, Lost, request_head

KEPT: Final = "kept"
NEW: Final = "new"
UPLOAD: Final = "upload"
CYCLE: Final = (KEPT, KEPT, KEPT, NEW, KEPT, KEPT, KEPT, UPLOAD, KEPT, KEPT)
"""Out of ten requests: eight on kept connections, one on a new one, one upload on a kept one."""
EXAMPLES: Final = 10


class LoadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent."""

    port: int
    rate: float = 1_000.0
    """Requests per second."""
    path: str = "/"
    host: str = "bench.test"
    connections: int = 64
    """Kept connections, opened at the start and used in turn."""
    upload_method: str = "POST"
    upload_bytes: int = 65_536
    upload_pieces: int = 4
    cycle: tuple[str, ...] = CYCLE
    version_field: str = "x-version"
    """Response field that tells which version answered."""
    in_flight: int = 4_000
    """More than these unanswered at once: the request is counted as lost (`backlog`), not sent."""
    timeout_s: float = 15.0


class LoadReport(msgspec.Struct, kw_only=True):
    """What became of all requests."""

    sent: int = 0
    ok: int = 0
    """Complete answers with a status under 500."""
    lost: dict[str, int] = {}
    """By kind: `refused`, `reset`, `truncated`, `malformed`, `timeout`, `backlog`, or the status (`503`)."""
    versions: dict[str, int] = {}
    """Good answers by version."""
    examples: list[str] = []
    """The first losses: seconds since the start, kind of request, what happened."""
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @property
    def failures(self) -> int:
        return sum(self.lost.values())

    def share(self, version: str) -> float:
        """Return the part of good answers that came from `version`, in [0, 1]."""
        return self.versions.get(version, 0) / self.ok if self.ok else 0.0


class Load:
    """One run. Used once."""

    def __init__(self, settings: LoadSettings) -> None:
        self.settings = settings
        self.sent = 0
        self.under_way: set[int] = set()
        """Numbers of the requests sent, from 1, that have no end yet."""
        self.ok = 0
        self.lost: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.examples: list[str] = []
        self.latencies_ms: list[float] = []
        self.idle: deque[Connection] = deque()
        self.started = 0.0
        self.seconds = 0.0
        s = settings
        piece = bytes(s.upload_bytes // s.upload_pieces)
        self.pieces = [piece] * s.upload_pieces
        length = ("Content-Length", str(len(piece) * s.upload_pieces))
        self.heads = {
            KEPT: request_head("GET", s.path, host=s.host),
            NEW: request_head("GET", s.path, [("Connection", "close")], host=s.host),
            UPLOAD: request_head(s.upload_method, s.path, [length], host=s.host),
        }

    async def run(self, requests: int, *, until: asyncio.Event | None = None) -> LoadReport:
        """Send at least `requests`, and go on until `until` is set. Returns once every one has its end."""
        settings = self.settings
        self.idle.extend([await self.open() for _ in range(settings.connections)])
        self.started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while self.sent < requests or (until and not until.is_set()):
                due = self.started + self.sent / settings.rate
                # Also when it is late: what the sockets have to say comes before the next request.
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                kind = settings.cycle[self.sent % len(settings.cycle)]
                self.sent += 1
                if len(self.under_way) >= settings.in_flight:
                    self.lose(kind, Lost("backlog"))
                    continue
                self.under_way.add(self.sent)
                group.create_task(self.shoot(self.sent, kind, due), name=f"request-{self.sent}")
        self.seconds = time.monotonic() - self.started
        while self.idle:
            self.idle.pop().close()
        return self.report()

    def open(self) -> Coroutine[None, None, Connection]:
        return Connection.open("127.0.0.1", self.settings.port)

    def has_ended(self, requests: int) -> bool:
        """Whether each of the first `requests` was sent and has its end."""
        return self.sent >= requests and min(self.under_way, default=requests + 1) > requests

    async def shoot(self, number: int, kind: str, due: float) -> None:
        """Carry one request to its end and count it."""
        connection: Connection | None = None
        try:
            connection = self.take() if kind != NEW else None
            if connection is None:
                connection = await self.open()
            pieces = self.pieces if kind == UPLOAD else ()
            answer = await connection.exchange(self.heads[kind], pieces, self.settings.timeout_s)
        except Lost as exc:
            self.lose(kind, exc)
        else:
            self.settle(kind, answer)
        finally:
            self.under_way.remove(number)
            self.latencies_ms.append((time.monotonic() - due) * 1000)
            if connection:
                self.put_back(kind, connection)

    def take(self) -> Connection | None:
        """Return the kept connection that has been idle longest; None when there is none."""
        while self.idle:
            connection = self.idle.popleft()
            if connection.reusable and not connection.closed:
                return connection
            connection.close()
        return None

    def put_back(self, kind: str, connection: Connection) -> None:
        if kind == NEW or not connection.reusable or len(self.idle) >= self.settings.connections:
            connection.close()
        elif not connection.closed:
            self.idle.append(connection)

    def settle(self, kind: str, answer: Answer) -> None:
        if answer.status >= 500:
            self.lose(kind, Lost(str(answer.status), answer.body[:200].decode("utf-8", "replace")))
            return
        self.ok += 1
        self.versions[answer.fields.get(self.settings.version_field, "?")] += 1

    def lose(self, kind: str, exc: Lost) -> None:
        self.lost[exc.kind] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{time.monotonic() - self.started:.2f} s, {kind}: {exc}")

    def report(self) -> LoadReport:
        """Return the counts so far."""
        latencies = sorted(self.latencies_ms) or [0.0]
        return LoadReport(
            sent=self.sent,
            ok=self.ok,
            lost=dict(self.lost),
            versions=dict(self.versions),
            examples=self.examples,
            seconds=self.seconds,
            p50_ms=latencies[len(latencies) // 2],
            p99_ms=latencies[int(len(latencies) * 0.99)],
            max_ms=latencies[-1],
        )
