"""The words of the link.

HELLO, DRAIN and QUIT never change between releases: an upgrade speaks to old workers with them.
"""

from typing import Final, Literal

import msgspec

from gateway.link.snapshot import Mark, Snapshot
from gateway.link.spans import Spans
from gateway.link.totals import VersionTotals

PROTOCOL: Final = 1


class ListenerName(msgspec.Struct, frozen=True):
    """Which of control's sockets a descriptor is: its configured address, as bound, and its slot."""

    address: str
    """`host:port` as bound (a configured port 0 is the real one here)."""
    slot: int
    listen: int = 0
    """Index of the `[[listen]]` table it came from."""


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t"):
    """A worker's first message; its listening descriptors travel with it, in the order of `listeners`."""

    protocol: int
    slot: int
    incarnation: str
    pid: int
    applied: int
    """Number of the snapshot it serves by; 0: none yet."""
    listeners: tuple[ListenerName, ...] = ()
    accepting: bool = False
    draining: bool = False
    release: str = ""


class Marks(msgspec.Struct, frozen=True, tag="marks", tag_field="t"):
    """Right after a HELLO to another control: every mark in the worker's table."""

    marks: tuple[Mark, ...] = ()


class Ack(msgspec.Struct, frozen=True, tag="ack", tag_field="t"):
    """Snapshot `number` is in force in this worker, or was refused (`error`)."""

    number: int
    apply_us: int = 0
    error: str = ""


class BreakerReport(msgspec.Struct, frozen=True, tag="breaker", tag_field="t"):
    """What a worker saw of an endpoint's breaker.

    kind: `failures` (count since the last success, for control's merged view), `success` (ends such a run),
    `opened` (this worker opened it),
    `trial_ok`, `trial_failed` (half-open results), `unused` (a grant not used for 1 s, given back).
    """

    key: str
    epoch: int
    kind: Literal["failures", "success", "opened", "trial_ok", "trial_failed", "unused"]
    count: int = 1


class Counts(msgspec.Struct, frozen=True, tag="counts", tag_field="t"):
    """Every 100 ms, changed or not: it is the heartbeat too."""

    versions: tuple[VersionTotals, ...] = ()
    connections: int = 0
    accepted: int = 0
    requests: int = 0
    """Of the whole worker, totals."""
    refused: dict[str, int] = {}
    """Answers the gateway itself gave, by reason (`no_route`, `no_endpoint`, `bad_request`, …): totals."""
    forced: int = 0
    """Exchanges cut at a drain deadline: total."""
    log_dropped: int = 0
    """Lines of the access log that were not written: total."""
    loop_lag_us: int = 0
    upstream: dict[str, int] = {}
    """Connections to upstreams now: `active`, `idle`, `connecting`."""
    spans_dropped: int = 0
    """Requests whose spans were not handed on: total."""


class EndpointLoad(msgspec.Struct, frozen=True, array_like=True):
    """What still runs at one draining endpoint."""

    key: str
    in_flight: int
    streams: int
    oldest_ms: int
    forced: int = 0


class DrainReport(msgspec.Struct, frozen=True, tag="drained", tag_field="t"):
    """Every 100 ms while something drains: the draining endpoints, done ones with zeros."""

    endpoints: tuple[EndpointLoad, ...]


class Leaving(msgspec.Struct, frozen=True, tag="leaving", tag_field="t"):
    """This worker has drained and exits; what follows is its last `Counts`."""

    forced: int = 0


class Drain(msgspec.Struct, frozen=True, tag="drain", tag_field="t"):
    """Stop accepting (after `delay_s`), finish what runs, exit; at `deadline_s` cut the rest."""

    deadline_s: float
    delay_s: float = 0.0


class Quit(msgspec.Struct, frozen=True, tag="quit", tag_field="t"):
    """Exit now."""


class SnapshotNumber(msgspec.Struct, frozen=True, tag="snapshot", tag_field="t"):
    """What can be read of a snapshot that is otherwise not understood."""

    number: int


class Accept(msgspec.Struct, frozen=True, tag="accept", tag_field="t"):
    """Start accepting on the sockets held. A worker is born idle."""


class Lend(msgspec.Struct, frozen=True, tag="lend", tag_field="t"):
    """Accept on these sockets too; descriptors travel with the message, in order."""

    listeners: tuple[ListenerName, ...]


class Reclaim(msgspec.Struct, frozen=True, tag="reclaim", tag_field="t"):
    """Stop accepting on lent sockets and close this process's copies (control keeps its own)."""

    listeners: tuple[ListenerName, ...]


class ReopenLogs(msgspec.Struct, frozen=True, tag="reopen_logs", tag_field="t"):
    """Open the log file anew: it was moved away. A release that does not know this word notices by itself."""


class InTouch(msgspec.Struct, frozen=True, tag="in_touch", tag_field="t"):
    """Control has the store, and goes by it: so does the table that came before.

    A release that does not know this word goes by its last table for good.
    """

    at: float
    """When it last had: monotonic seconds of this machine, so that a word which lies around grows old."""


class DrainEndpoints(msgspec.Struct, frozen=True, tag="drain_endpoints", tag_field="t"):
    """How long the named endpoints, marked draining in a snapshot, may still run what they run."""

    keys: tuple[str, ...]
    deadline_s: float


Down = Snapshot | Accept | Drain | DrainEndpoints | Quit | Lend | Reclaim | ReopenLogs | InTouch
Up = Hello | Marks | Ack | BreakerReport | Counts | DrainReport | Leaving | Spans
