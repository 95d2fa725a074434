"""What a line of the access log says of a request, and how: as JSON, or in the combined format.

A JSON line is written by one native function unless something in it has to be escaped; with care, then, and
where nothing is compiled.
"""

import json
import re
from datetime import UTC, datetime
from typing import Final

from gateway.worker import json_line

_write: Final = json_line.write
_UNSAFE: Final = re.compile(r'[^\x20-\x7e]|["\\]')
NO_FLAGS: Final[list[str]] = []
"""Nobody adds to it."""
_END: Final = b"}\n"


class Line:
    """What is known of a request when it has ended. What was not understood of a refused head is empty."""

    __slots__ = (
        "attempts",
        "bytes_in",
        "bytes_out",
        "client",
        "deployment",
        "duration_us",
        "ended",
        "endpoint",
        "flags",
        "gateway_us",
        "host",
        "method",
        "path",
        "peer",
        "proto",
        "referer",
        "request_id",
        "service",
        "status",
        "trace_id",
        "upstream_us",
        "user_agent",
        "version",
    )

    def __init__(self) -> None:
        self.ended = 0.0
        """When the answer ended, monotonic seconds."""
        self.request_id = b""
        """This and the trace's are of letters, digits and marks, if they are sound."""
        self.trace_id = b""
        self.client = ""
        """The address of the client itself: what trusted proxies say, else `peer`."""
        self.peer = ""
        """Who was connected to us."""
        self.method = b""
        self.host = ""
        self.path = b""
        """The target as it came, with what the settings leave of its query."""
        self.proto = ""
        self.status = 0
        self.service = ""
        self.version = ""
        """Empty if the gateway answered by itself."""
        self.endpoint = ""
        self.attempts = 0
        """Tries."""
        self.duration_us = 0
        """From the head's end to the answer's."""
        self.upstream_us = 0
        """How long upstreams were waited for, up to the answer's head: connections and failed tries too."""
        self.gateway_us = 0
        """What else it took up to there."""
        self.bytes_in = 0
        """Of the request's content."""
        self.bytes_out = 0
        """Of the answer's."""
        self.user_agent = b""
        self.deployment = ""
        """Id of the service's open rollout; empty: there is none."""
        self.flags = NO_FLAGS
        """What went wrong or was out of the ordinary: the words of `gateway_attempts_total` and
        `gateway_refused_total`, and some of their own (config/README.md)."""
        self.referer = b""
        """For the combined format alone."""


class LineFormat:
    """How a line is written."""

    __slots__ = ()

    def write(self, buffer: bytearray, at: int, line: Line, offset: float) -> int:
        """Write the line with its end: ASCII, in which no byte of a client ends anything.

        at: where in the buffer, which grows if it has to. offset: what Unix time is ahead of monotonic
        seconds. Returns the place behind the line.
        """
        raise NotImplementedError


class JsonFormat(LineFormat):
    """An object a line."""

    __slots__ = ("_second", "_time")

    def __init__(self) -> None:
        self._second = -1
        """Of Unix time: the one `_time` is for."""
        self._time = b""

    def write(self, buffer: bytearray, at: int, line: Line, offset: float) -> int:
        ended = line.ended + offset
        second = int(ended)
        microsecond = int((ended - second) * 1e6)
        if second != self._second:
            self._second = second
            self._time = _rfc3339(second)
        end = _write(
            buffer,
            at,
            self._time,
            microsecond,
            line.request_id,
            line.trace_id,
            line.client,
            line.peer,
            line.method,
            line.host,
            line.path,
            line.proto,
            line.status,
            line.service,
            line.version,
            line.endpoint,
            line.attempts,
            line.duration_us,
            line.upstream_us,
            line.gateway_us,
            line.bytes_in,
            line.bytes_out,
            line.user_agent,
            _END if not line.deployment and not line.flags else _unusual_end(line),
        )
        return end if end != at else _put(buffer, at, _with_care(self._time, microsecond, line))


def _put(buffer: bytearray, at: int, line: bytes) -> int:
    """Write a line into a buffer, which grows if it has to. Returns the place behind it."""
    end = at + len(line)
    buffer[at:end] = line
    return end


def _rfc3339(second: int) -> bytes:
    """Return a second of Unix time, without its zone."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode("ascii")


def _unusual_end(line: Line) -> bytes:
    """Return the end of a line that has more to say than most."""
    deployment = b',"deployment":' + _json(line.deployment) if line.deployment else b""
    flags = b',"flags":' + _json(line.flags) if line.flags else b""
    return deployment + flags + _END


def _with_care(time: bytes, microsecond: int, line: Line) -> bytes:
    """Return a line whatever is in it."""
    said = {
        "ts": f"{time.decode('ascii')}.{microsecond:06d}Z",
        "request_id": ascii_of(line.request_id),
        "trace_id": ascii_of(line.trace_id),
        "client": line.client,
        "peer": line.peer,
        "method": ascii_of(line.method),
        "host": line.host,
        "path": ascii_of(line.path),
        "proto": line.proto,
        "status": line.status,
        "service": line.service,
        "version": line.version,
        "endpoint": line.endpoint,
        "attempts": line.attempts,
        "duration_ms": line.duration_us / 1000,
        "upstream_ms": line.upstream_us / 1000,
        "gateway_ms": line.gateway_us / 1000,
        "bytes_in": line.bytes_in,
        "bytes_out": line.bytes_out,
        "user_agent": ascii_of(line.user_agent),
    }
    return _json(said)[:-1] + _unusual_end(line)


def _json(value: object) -> bytes:
    """Return a value in ASCII. JSON lets DEL stand as it is; a terminal does not."""
    return json.dumps(value, separators=(",", ":")).encode("ascii").replace(b"\x7f", b"\\u007f")


def ascii_of(data: bytes) -> str:
    """Return what a client sent as text."""
    return data.decode("ascii", "backslashreplace")


class CombinedFormat(LineFormat):
    """Like Apache's: client, identity, user, time, request, status, bytes, referer, agent."""

    __slots__ = ("_second", "_time")

    def __init__(self) -> None:
        self._second = -1
        """Unix time: the second `_time` is for."""
        self._time = ""

    def write(self, buffer: bytearray, at: int, line: Line, offset: float) -> int:
        second = int(line.ended + offset)
        if second != self._second:
            self._second = second
            self._time = datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        request = f"{_quoted(line.method)} {_quoted(line.path)} {line.proto}".strip() or "-"
        referer, agent = _quoted(line.referer) or "-", _quoted(line.user_agent) or "-"
        text = (
            f'{line.client or "-"} - - [{self._time}] "{request}" {line.status} {line.bytes_out or "-"}'
            f' "{referer}" "{agent}"\n'
        )
        return _put(buffer, at, text.encode("ascii", "backslashreplace"))


def _quoted(data: bytes) -> str:
    """Return what a client sent as it may stand between quotes: what could end them, or a line, escaped."""
    text = ascii_of(data)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\{char}" if char in '"\\' else f"\\x{ord(char):02x}"
