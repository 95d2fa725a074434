"""The access log: one line for each request, as JSON or in the combined format.

The exchange adds what it knows to a list; when that is long it becomes bytes, and ten times a second, or when
they are many, a thread is given them to write. So the loop never waits for a disk or a pipe, nor often for a
thread that has woken up. If the target stalls, lines are dropped and counted.
"""

import asyncio
import re
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.core.settings.observing import LogFilter, statuses_of
from gateway.worker.log_writer import CLOSE_S, LogWriter

FLUSH_S: Final = 0.1
BATCH: Final = 200
"""Lines made bytes at a time: 40 µs."""
PIECE_BYTES: Final = 262_144
"""What the thread is given at once, when there is so much. Each time it wakes, the loop waits for it."""

_UNSAFE: Final = re.compile(r'[^\x20-\x7e]|["\\]')


class Line(msgspec.Struct, gc=False):
    """What is known of a request when it has ended. Text is ASCII: `ascii_of` makes it so.

    What was not understood of a head that is refused is empty.
    """

    ts: str
    request_id: str
    trace_id: str
    client: str
    """The address of the client itself: what trusted proxies say, else `peer`."""
    peer: str
    """Who was connected to us."""
    method: str
    host: str
    path: str
    """The target as it came, with what the settings leave of its query."""
    proto: str
    status: int
    service: str = ""
    version: str = ""
    """Empty if the gateway answered by itself."""
    endpoint: str = ""
    attempts: int = 0
    """Tries."""
    duration_ms: float = 0.0
    """From the head's end to the answer's."""
    upstream_ms: float = 0.0
    """How long upstreams were waited for, connections and failed tries included, up to the answer's head."""
    gateway_ms: float = 0.0
    """What else it took up to there."""
    bytes_in: int = 0
    """Of the request's content."""
    bytes_out: int = 0
    """Of the answer's."""
    user_agent: str = ""
    deployment: str | UnsetType = UNSET
    """Id of the service's open rollout."""
    flags: list[str] | UnsetType = UNSET
    """What went wrong or was out of the ordinary: the words of `gateway_attempts_total` and
    `gateway_refused_total`, and some of their own (config/README.md)."""
    referer: str | UnsetType = UNSET
    """For the combined format alone."""


NO_STATUS: Final = (1000, 0)


class Wanted:
    """Which requests have a line, as the settings say."""

    def __init__(self, only: LogFilter) -> None:
        self._first, self._last = statuses_of(only.status) if only.status is not None else NO_STATUS
        self._min_us = -1 if only.min_duration is None else only.min_duration * 1000
        self._retried = only.retried

    def wants(self, status: int, duration_us: int, attempts: int) -> bool:
        """Tell whether any of the conditions holds."""
        return (
            self._first <= status <= self._last
            or 0 <= self._min_us <= duration_us
            or (self._retried and attempts > 1)
        )


def ascii_of(data: bytes) -> str:
    """Return what a client sent as text for a line."""
    return data.decode("ascii", "backslashreplace")


def without_query(target: str) -> str:
    """Return a target without its query."""
    return target.partition("?")[0]


def redacted(target: str) -> str:
    """Return a target whose parameters have no values."""
    path, mark, query = target.partition("?")
    if not mark:
        return target
    names = [f"{name}=***" if equals else ("***" if name else "") for name, equals, _ in _parameters(query)]
    return f"{path}?{'&'.join(names)}"


def _parameters(query: str) -> list[tuple[str, str, str]]:
    return [each.partition("=") for each in query.split("&")]


def _as_it_came(target: str) -> str:
    return target


class _Second:
    """The second that is stamped now, as text: it is the same for many lines."""

    def __init__(self) -> None:
        self.number = -1
        self.text = ""


_second: Final = _Second()


def stamp(now: float) -> str:
    """Return Unix time as a line has it: RFC 3339, to the microsecond."""
    number = int(now)
    if number != _second.number:
        _second.number = number
        _second.text = datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
    return f"{_second.text}{int((now - number) * 1e6):06d}Z"


class AccessLog:
    """Collects lines on the loop; a thread writes them."""

    def __init__(
        self,
        format: Literal["json", "combined"],
        path: str,
        *,
        query: Literal["keep", "redact", "drop"] = "keep",
        only: LogFilter | None = None,
    ) -> None:
        """path: a file, appended to, or `-` for standard output. Raises OSError if it cannot be opened."""
        self.shown = {"keep": _as_it_came, "redact": redacted, "drop": without_query}[query]
        """What is written of a target."""
        self.only = Wanted(only) if only is not None else None
        """Which requests have a line; None: all."""
        self.has_referer = format == "combined"
        self._encode = _json_lines if format == "json" else _combined_lines
        self._writer = LogWriter(path)
        self._lines: list[Line] = []
        self._piece: list[bytes] = []
        """What the thread is given next."""
        self._piece_bytes = 0
        self._piece_lines = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._refused = 0

    @property
    def dropped(self) -> int:
        """Lines that were not written, since the start: the target stalled, or failed."""
        return self._refused + self._writer.lost

    def start(self) -> None:
        """Begin to write, on the running loop. Not before a fork: threads do not survive one."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()

    def add(self, line: Line) -> None:
        """Note a request that has ended."""
        lines = self._lines
        lines.append(line)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)
        if len(lines) >= BATCH:
            self._encode_lines()
            if self._piece_bytes >= PIECE_BYTES:
                self.flush()

    def flush(self) -> None:
        """Hand what was added to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self._encode_lines()
        if self._piece and not self._writer.put(b"".join(self._piece), self._piece_lines):
            self._refused += self._piece_lines
        self._piece.clear()
        self._piece_bytes = self._piece_lines = 0

    def _encode_lines(self) -> None:
        """Add the lines to the piece."""
        lines, self._lines = self._lines, []
        encoded = self._encode(lines)
        self._piece.append(encoded)
        self._piece_bytes += len(encoded)
        self._piece_lines += len(lines)

    def reopen(self) -> None:
        """Write what there is, then open the file anew if it was moved away."""
        self.flush()
        self._writer.reopen()

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Write what is left. A target that stalls is waited for so long, then left to the process's end."""
        self.flush()
        self._writer.close(wait_s)


# Formats

_encoder: Final = msgspec.json.Encoder()


def _json_lines(lines: list[Line]) -> bytes:
    # JSON lets DEL stand as it is; a terminal does not.
    return _encoder.encode_lines(lines).replace(b"\x7f", b"\\u007f")


def _combined_lines(lines: list[Line]) -> bytes:
    """Return lines like Apache's: client, identity, user, time, request, status, bytes, referer, agent."""
    text: list[str] = []
    second = at = ""
    for line in lines:
        if line.ts[:19] != second:
            second = line.ts[:19]
            at = datetime.fromisoformat(second).strftime("%d/%b/%Y:%H:%M:%S +0000")
        request = f"{_quoted(line.method)} {_quoted(line.path)} {line.proto}".strip() or "-"
        referer, agent = _quoted(line.referer or "") or "-", _quoted(line.user_agent) or "-"
        text.append(
            f'{line.client or "-"} - - [{at}] "{request}" {line.status} {line.bytes_out or "-"}'
            f' "{referer}" "{agent}"\n'
        )
    return "".join(text).encode("ascii", "backslashreplace")


def _quoted(text: str) -> str:
    """Return text as it may stand between quotes: what could end them, or a line, escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\{char}" if char in '"\\' else f"\\x{ord(char):02x}"
