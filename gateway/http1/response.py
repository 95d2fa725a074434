"""A response's head, from an upstream's bytes to what is passed on."""

from typing import Final

import httptools

from gateway.errors import BadResponse
from gateway.http1.heads import MAX_COMMON_BYTES, Head, Intake, Sort
from gateway.http1.message import HEAD_END, MAX_LENGTH, options_of

SPECIAL: Final = (
    "Connection",
    "Content-Length",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
"""Fields of the upstream's connection, or that frame the message. Of them only the length is passed on."""


def _is_dropped(_name: bytes) -> bool:
    """Nothing else is kept from clients."""
    return False


_SORT: Final = Sort(SPECIAL, ("Content-Length",), _is_dropped)
_SHAPES: Final = _SORT.shapes
_INTAKE: Final = Intake()
"""For whichever head is being read whole: that takes no time in between."""

MAX_HEAD_BYTES: Final = 65_536
MAX_FIELDS: Final = 300

CHUNKED_BODY: Final = -1
UNTIL_CLOSE: Final = -2
"""`length` of a body that only the connection's end delimits."""
_VERSIONS: Final = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_LINE_BYTES: Final = len(b"HTTP/1.1 200 \r\n")


class ResponseReader(Head):
    """Reads the heads of one connection's responses; holds the fields of the latest."""

    __slots__ = (
        "_heads",
        "_parser",
        "_repeats",
        "_seen",
        "held",
        "keep_alive",
        "length",
        "rewritten",
        "status",
    )

    def __init__(self) -> None:
        super().__init__()
        self.status = 0
        self.length = 0
        """Bytes of body the fields announce; CHUNKED_BODY; UNTIL_CLOSE."""
        self.keep_alive = True
        """Whether the upstream will take another request."""
        self.rewritten = b""
        """The head as it was last passed on, where that depends on it alone; empty: to be made."""
        self._heads = 0
        self.held = b""
        """Part of a head whose end has not come."""
        self._seen = b""
        """The last head: one that equals it byte for byte is not read again."""
        self._repeats = False
        """Whether the last head held a field twice (two cookies, say): the next one will too."""
        self._parser: httptools.HttpResponseParser | None = None

    def feed(self, data: bytes) -> int:
        """Read a head. Returns how many bytes of `data` belong to it, or -1 while it is incomplete.

        Raises BadResponse (RFC 9112 §4, §5, §6.3).
        """
        seen = self._seen
        if seen and data.startswith(seen):
            return len(seen)
        if self.held:
            return self._feed_piece(data)
        self._seen = self.rewritten = b""
        end = data.find(HEAD_END) + 4
        if 4 <= end <= MAX_COMMON_BYTES and not self._repeats:
            head = data[:end]
            if self._is_common(head):
                self._seen = head
                return end
        return self._feed_piece(data)

    def forget(self) -> None:
        """Drop a head that was never finished."""
        self.held = b""

    # --- a head in common form --------------------------------------------------------------------

    def _is_common(self, head: bytes) -> bool:
        """Read `head` if it is in common form, as most are. False: read it with care. Raises BadResponse."""
        fields, starts = _INTAKE.fields, _INTAKE.starts
        fields.clear()
        starts.clear()
        parser = httptools.HttpResponseParser(_INTAKE)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        shape = _SHAPES[tuple(fields)]
        values = tuple(fields.values())
        if len(starts) != 1 or not shape.is_common or head[:9] not in _VERSIONS:
            return False
        rest = shape.whole % values
        # A status line, the reason in it and all, is as long as it ought to be: nothing hides behind it.
        if len(head) != _LINE_BYTES + len(starts[0]) + len(rest) or not head.endswith(rest):
            return False
        if not self._hold(shape, values):
            return False
        self._check(parser.get_status_code(), shape.count, http10=head[:9] != b"HTTP/1.1 ")
        return True

    # --- any other head ---------------------------------------------------------------------------

    def _feed_piece(self, data: bytes) -> int:
        """Read a head that comes in pieces, or in an uncommon form."""
        held = len(self.held)
        if not held:
            self._pairs = []
            self._heads = 0
            self._parser = httptools.HttpResponseParser(self)
        head = self.held + data
        end = head.find(HEAD_END, max(0, held - 3)) + 4
        if end >= 4:
            head = head[:end]
        if len(head) > MAX_HEAD_BYTES:
            raise BadResponse("the head of the response is too long", sent=True)
        self._feed_parser(head[held:])
        if end < 4:
            self.held = head
            return -1
        self.held = b""
        self._end(head)
        self._seen = head
        return end - held

    def on_headers_complete(self) -> None:
        self._heads += 1

    def _feed_parser(self, piece: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # a 101: the head is complete
        except httptools.HttpParserError as exc:
            raise BadResponse(f"the upstream's response is malformed: {exc}", sent=True) from exc

    def _end(self, head: bytes) -> None:
        """Sort and check what was read."""
        parser, self._parser = self._parser, None
        assert parser is not None
        if self._heads != 1 or head[:7] != b"HTTP/1.":
            raise BadResponse("the upstream's response is malformed", sent=True)
        names = [name for name, _ in self._pairs]
        self._repeats = len(set(names)) < len(names)
        count = self._arrange(_SORT)
        self._check(parser.get_status_code(), count, http10=head[7:8] != b"1")

    # --- what the head says -----------------------------------------------------------------------

    def _check(self, status: int, count: int, *, http10: bool) -> None:
        """Set what depends on the whole head. count: its fields. Raises BadResponse."""
        if count > MAX_FIELDS:
            raise BadResponse("the response has too many fields", sent=True)
        self.status = status
        if status < 100:
            raise BadResponse(f"{status} is not a status", sent=True)
        special = self.special
        connection = special.get(b"connection")
        if connection is None or connection == b"keep-alive":
            self.keep_alive = not http10 or connection is not None
        else:
            options = options_of(connection)
            self.keep_alive = b"close" not in options and (not http10 or b"keep-alive" in options)
            self._drop_nominated(options)
        self.length = self._length(special, http10=http10)
        if status == 204 or status < 200:
            self.drop(b"content-length")  # RFC 9110 §8.6: none may be sent

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
        for name in options - _USUAL_OPTIONS:
            if not _SORT.is_special(name):
                self.drop(name)


_USUAL_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))
