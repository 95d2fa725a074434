"""A response's head, from an upstream's bytes to what is passed on."""

from typing import Final

import httptools

from gateway.errors import BadResponse
from gateway.http1.message import CRLF, HEAD_END, MAX_LENGTH, line_starts, options_of, spellings

PLAIN: Final = line_starts(
    (
        "Accept-Ranges",
        "Access-Control-Allow-Credentials",
        "Access-Control-Allow-Headers",
        "Access-Control-Allow-Methods",
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
        "Access-Control-Max-Age",
        "Age",
        "Alt-Svc",
        "Cache-Control",
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Location",
        "Content-Range",
        "Content-Security-Policy",
        "Content-Type",
        "ETag",
        "Expires",
        "Last-Modified",
        "Link",
        "Location",
        "Pragma",
        "Referrer-Policy",
        "Retry-After",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Protocol",
        "Server",
        "Server-Timing",
        "Set-Cookie",
        "Strict-Transport-Security",
        "Vary",
        "Via",
        "WWW-Authenticate",
        "X-Content-Type-Options",
        "X-Frame-Options",
        "X-Powered-By",
        "X-Request-ID",
    )
)
"""Fields passed on as they came, by the spelling they came in."""

SPECIAL: Final = spellings(
    (
        "Connection",
        "Content-Length",
        "Date",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    )
)
"""Fields of the upstream's connection, or that frame the message: kept apart in `special`."""

_PLAIN_GET: Final = PLAIN.get
_SPECIAL_GET: Final = SPECIAL.get
_SPECIAL_KEYS: Final = frozenset(SPECIAL.values())
_BLANK: Final = (b" ", b"\t")

MAX_HEAD_BYTES: Final = 65_536
MAX_FIELDS: Final = 300

CHUNKED_BODY: Final = -1
UNTIL_CLOSE: Final = -2
"""`length` of a body that only the connection's end delimits."""


class ResponseReader:
    """Reads the heads of one connection's responses; holds the fields of the latest."""

    __slots__ = (
        "_buffer",
        "_extend",
        "_heads",
        "_parser",
        "_seen",
        "keep_alive",
        "length",
        "lines",
        "rewritten",
        "special",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.lines: list[bytes] = []
        """Fields passed on as they came: start (`Name: `), value, CRLF, and so on, three a field."""
        self.special: dict[bytes, bytes] = {}
        """Lower-case name -> value of the fields in SPECIAL."""
        self.length = 0
        """Bytes of body the fields announce; CHUNKED_BODY; UNTIL_CLOSE."""
        self.keep_alive = True
        """Whether the upstream will take another request."""
        self.rewritten = b""
        """The head as it was last passed on, where that depends on it alone; empty: to be made."""
        self._heads = 0
        self._buffer = b""
        self._seen = b""
        """The last head: one that equals it byte for byte is not read again."""
        self._extend = self.lines.extend
        self._parser: httptools.HttpResponseParser | None = None

    @property
    def has_begun(self) -> bool:
        """Whether part of a head has been read and its end has not."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> int:
        """Read a head. Returns how many bytes of `data` belong to it, or -1 while it is incomplete.

        Raises BadResponse (RFC 9112 §4, §5, §6.3).
        """
        held = len(self._buffer)
        if not held:
            end = data.find(HEAD_END)
            head = data[: end + 4] if end >= 0 else data
            if head == self._seen:
                return end + 4
            self._seen = self.rewritten = b""
            self.lines.clear()
            self.special.clear()
            self._heads = 0
            self._parser = httptools.HttpResponseParser(self)
            piece = head
        else:
            head = self._buffer + data
            end = head.find(HEAD_END, max(0, held - 3))
            if end >= 0:
                head = head[: end + 4]
            piece = head[held:]
        if len(head) > MAX_HEAD_BYTES:
            raise BadResponse("the head of the response is too long", sent=True)
        self._feed_parser(piece)
        if end < 0:
            self._buffer = head
            return -1
        self._buffer = b""
        self._check(head)
        self._seen = head
        return len(piece)

    def forget(self) -> None:
        """Drop a head that was never finished."""
        self._buffer = b""

    # --- llhttp's callbacks -----------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        start = _PLAIN_GET(name)
        if start is not None:
            self._extend((start, value, CRLF))
            return
        key = _SPECIAL_GET(name)
        if key is None or key in self.special or value[-1:] in _BLANK:
            self._on_unusual(name, value)
            return
        self.special[key] = value

    def on_headers_complete(self) -> None:
        self._heads += 1

    def _on_unusual(self, name: bytes, value: bytes) -> None:
        """Take a field spelled or repeated as few upstreams do."""
        key = name.lower()
        value = value.rstrip(b" \t")
        if key not in _SPECIAL_KEYS:
            self._extend((name + b": ", value, CRLF))
            return
        before = self.special.get(key)
        self.special[key] = value if before is None else before + b", " + value

    # --- what the head says -----------------------------------------------------------------------

    def _feed_parser(self, piece: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # a 101: the head is complete
        except httptools.HttpParserError as exc:
            raise BadResponse(f"the upstream's response is malformed: {exc}", sent=True) from exc

    def _check(self, head: bytes) -> None:
        assert self._parser is not None
        if self._heads != 1 or head[:7] != b"HTTP/1.":
            raise BadResponse("the upstream's response is malformed", sent=True)
        if len(self.lines) > 3 * MAX_FIELDS:
            raise BadResponse("the response has too many fields", sent=True)
        self.status = status = self._parser.get_status_code()
        if status < 100:
            raise BadResponse(f"{status} is not a status", sent=True)
        special = self.special
        http10 = head[7:8] != b"1"
        connection = special.get(b"connection")
        if connection is None or connection == b"keep-alive":
            self.keep_alive = not http10 or connection is not None
        else:
            options = options_of(connection)
            self.keep_alive = b"close" not in options and (not http10 or b"keep-alive" in options)
            self._drop_nominated(options)
        self.length = self._length(special, http10=http10)

    def _length(self, special: dict[bytes, bytes], *, http10: bool) -> int:
        """Return how the body is delimited (RFC 9112 §6.3)."""
        length = special.get(b"content-length")
        coding = special.get(b"transfer-encoding")
        if coding is None:
            if length is not None and int(length) > MAX_LENGTH:
                raise BadResponse("the response's Content-Length overflows", sent=True)
            return UNTIL_CLOSE if length is None else int(length)
        if length is not None or http10 or coding.lower() != b"chunked":
            raise BadResponse("the response's framing is ambiguous or unknown", sent=True)
        return CHUNKED_BODY

    def _drop_nominated(self, options: frozenset[bytes]) -> None:
        """Remove the fields the Connection field names (RFC 9110 §7.6.1)."""
        if options <= _USUAL_OPTIONS:
            return
        lines = self.lines
        for at in range(len(lines) - 3, -1, -3):
            if lines[at][:-2].lower() in options:
                del lines[at : at + 3]


_USUAL_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))
