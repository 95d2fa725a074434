"""A response's head, from an upstream's bytes to what is passed on.

A head in common form is read by the codec, any other with care, by llhttp. What it says is judged here.
"""

from typing import Final

import httptools

from gateway.errors import BadResponse
from gateway.http1 import codec
from gateway.http1.heads import Head, Pair
from gateway.http1.message import HEAD_END, MAX_LENGTH, options_of

SPECIAL: Final = frozenset(
    (
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-outcome",
    )
)
"""Fields of the upstream's connection, of the framing, or meant for us. Only the length is passed on."""


def _is_kept(name: bytes) -> bool:
    return name not in SPECIAL or name == b"content-length"


MAX_HEAD_BYTES: Final = 65_536
MAX_FIELDS: Final = 300

CHUNKED_BODY: Final = -1
UNTIL_CLOSE: Final = -2
"""`length` of a body that only the connection's end delimits."""
_read_response: Final = codec.read_response


class ResponseReader(Head):
    """Reads the heads of one connection's responses; holds the fields of the latest."""

    __slots__ = ("_heads", "_parser", "_read", "has_date", "held", "keep_alive", "length", "status")

    def __init__(self) -> None:
        super().__init__()
        self.status = 0
        self.length = 0
        """Bytes of body the fields announce; CHUNKED_BODY; UNTIL_CLOSE."""
        self.has_date = False
        """Whether a Date is passed on."""
        self.keep_alive = True
        """Whether the upstream will take another request."""
        self.held = b""
        """Part of a head whose end has not come."""
        self._parser: httptools.HttpResponseParser | None = None
        self._read: list[Pair] = []
        self._heads = 0

    def feed(self, data: bytes) -> int:
        """Read a head. Returns how many bytes of `data` belong to it, or -1 while it is incomplete.

        Raises BadResponse (RFC 9112 §4, §5, §6.3).
        """
        if not self.held:
            read = _read_response(data)
            if read is not None and read[0] <= MAX_HEAD_BYTES:
                end, self.status, self.length, connection, self.has_date, self.special, self.block = read
                self.keep_alive = True
                if connection is not None or self.status == 204:
                    self._obey(connection, http10=False)
                return end
        return self._feed_piece(data)

    def _feed_piece(self, data: bytes) -> int:
        """Read with care a head that is in no common form, or comes in pieces."""
        held = len(self.held)
        if not held:
            self._read = []
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
        return end - held

    def forget_held(self) -> None:
        """Drop a head that was never finished, and its parser, which refers back."""
        self._parser = None
        self.held = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field from llhttp."""
        self._read.append((name, value))

    def on_headers_complete(self) -> None:
        """Learn from llhttp that the head has ended."""
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
        pairs, self._read = self._read, []
        assert parser is not None
        if self._heads != 1 or head[:7] != b"HTTP/1.":
            raise BadResponse("the upstream's response is malformed", sent=True)
        if len(pairs) > MAX_FIELDS:
            raise BadResponse("the response has too many fields", sent=True)
        self.status = parser.get_status_code()
        if self.status < 100:
            raise BadResponse(f"{self.status} is not a status", sent=True)
        self.sort(pairs, SPECIAL, _is_kept)
        http10 = head[7:8] != b"1"
        self.length = self._length(http10=http10)
        self.has_date = self.passes_on(b"date")
        self._obey(self.special.pop(b"connection", None), http10=http10)

    def _obey(self, connection: bytes | None, *, http10: bool) -> None:
        """Do as the Connection field says, and drop what may not be passed on."""
        if connection is None or connection == b"keep-alive":
            self.keep_alive = not http10 or connection is not None
        else:
            options = options_of(connection)
            self.keep_alive = b"close" not in options and (not http10 or b"keep-alive" in options)
            for name in options - SPECIAL:  # RFC 9110 §7.6.1: fields the Connection field names
                self.drop(name)
            self.has_date = self.has_date and self.passes_on(b"date")
        if self.status == 204 or self.status < 200:
            self.drop(b"content-length")  # RFC 9110 §8.6: none may be sent

    def _length(self, *, http10: bool) -> int:
        """Take the fields that delimit the body, and return how (RFC 9112 §6.3). Raises BadResponse."""
        length = self.special.pop(b"content-length", None)
        coding = self.special.pop(b"transfer-encoding", None)
        if coding is None:
            if length is not None and int(length) > MAX_LENGTH:
                raise BadResponse("the response's Content-Length overflows", sent=True)
            return UNTIL_CLOSE if length is None else int(length)
        if length is not None or http10 or coding.lower() != b"chunked":
            raise BadResponse("the response's framing is ambiguous or unknown", sent=True)
        return CHUNKED_BODY
