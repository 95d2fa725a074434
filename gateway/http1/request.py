"""A request's head, from bytes to what the proxy decides on: read by llhttp, checked here, once."""

import re
from typing import Final

import httptools

from gateway.errors import (
    BadRequest,
    DownstreamError,
    HeadTooLarge,
    NotImplementedByUs,
    UnsupportedVersion,
    UriTooLong,
)
from gateway.http1.heads import MAX_COMMON_BYTES, NO_LINES, Head, Intake, Sort
from gateway.http1.message import CRLF, HEAD_END, MAX_LENGTH, options_of
from gateway.http1.target import host_of, normal_path, split_absolute

SPECIAL: Final = (
    "Connection",
    "Content-Length",
    "Expect",
    "Forwarded",
    "Host",
    "HTTP2-Settings",
    "Keep-Alive",
    "Max-Forwards",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Request-ID",
)
"""Fields of this connection, or that the gateway writes itself: kept apart in `special`."""
_SPECIAL_KEYS: Final = frozenset(name.lower().encode() for name in SPECIAL)

CHUNKED_BODY: Final = -1
"""`length` of a request whose body is chunked."""


def _is_dropped(name: bytes) -> bool:
    """Tell whether a field is for proxies alone, or poses as one the gateway vouches for.

    Services in the manner of CGI read `X_Forwarded_For` as X-Forwarded-For, and `Proxy` as a setting of
    their own (CVE-2016-5385).
    """
    if b"_" in name and name.replace(b"_", b"-") in _SPECIAL_KEYS:
        return True
    return name == b"proxy" or name.startswith(b"proxy-")


_SORT: Final = Sort(SPECIAL, (), _is_dropped)
_SHAPES: Final = _SORT.shapes
_INTAKE: Final = Intake()
"""For whichever head is being read whole: that takes no time in between."""
_IDLE_PARSERS: Final[list[httptools.HttpRequestParser]] = []
"""The parser of the last such head, if another may follow."""


class RequestReader(Head):
    """Reads the heads of one connection's requests, one after the other; holds the fields of the latest.

    `feed` until it returns an offset; then the attributes describe the request until the next `feed`. A
    client sends much the same again and again: a head, or a head's fields, that equal the last one's byte for
    byte are not read twice.
    """

    __slots__ = (
        "_common_bytes",
        "_has_more",
        "_heads",
        "_parser",
        "_rest",
        "_seen",
        "expects_continue",
        "header_bytes",
        "header_fields",
        "held",
        "host",
        "http10",
        "is_quiet",
        "keep_alive",
        "length",
        "method",
        "nominated",
        "path",
        "query",
        "serial",
        "target",
        "upgrade",
        "uri_bytes",
    )

    def __init__(self, header_bytes: int, header_fields: int, uri_bytes: int) -> None:
        super().__init__()
        self.header_bytes = header_bytes
        self.header_fields = header_fields
        self.uri_bytes = uri_bytes
        self.method = b""
        self.target = b""
        self.path = b""
        """Normalised, without the query; `*` for `OPTIONS *`."""
        self.query = b""
        """With its question mark, or empty."""
        self.host = ""
        """Lower case, without port; empty for an HTTP/1.0 request that names none."""
        self.serial = 0
        """Rises whenever the head differs from the one before."""
        self.http10 = False
        self.is_quiet = False
        """Whether `special` holds Host and at most Connection besides, in HTTP/1.1."""
        self.keep_alive = True
        self.length = 0
        """Bytes of body; CHUNKED_BODY; 0: none."""
        self.expects_continue = False
        self.upgrade = b""
        """The protocols asked for, if the request really asks to upgrade (RFC 9110 §7.8)."""
        self.nominated: frozenset[bytes] = frozenset()
        """Lower-case options of the Connection field."""
        self._common_bytes = min(header_bytes, MAX_COMMON_BYTES)
        self._has_more = False
        """Whether the last data held more than a head, as the next may, too."""
        self._heads = 0
        self.held = b""
        """Part of a head whose end has not come."""
        self._seen = b""
        """The last head, if it was plain; empty if it was not."""
        self._rest = b""
        """The same without its request line."""
        self._parser: httptools.HttpRequestParser | None = None
        """While a head is read."""

    def feed(self, data: bytes) -> int:
        """Read a head. Returns how many bytes of `data` belong to it, or -1 while it is incomplete.

        Raises a DownstreamError; nothing further can be read from that connection then.
        """
        if data == self._seen and data:
            return len(data)
        if self.held:
            return self._feed_piece(data)
        end = len(data)
        if self._has_more or data[-4:] != HEAD_END:
            end = data.find(HEAD_END) + 4
            self._has_more = end < len(data)
        if 4 <= end <= self._common_bytes and self._is_common(data if end == len(data) else data[:end]):
            return end
        return self._feed_piece(data)

    def glimpse(self) -> tuple[bytes, bytes]:
        """Return the method and the target of a head that is refused, as far as they are known."""
        word = _LIKE_A_METHOD.match(self.held)
        method = self.method or (word[0].rstrip() if word else b"")
        return method[:32], self.target[: self.uri_bytes]

    def rest(self) -> None:
        """Give back what is only kept for speed; the next head is read like the first."""
        self._parser = None
        self._seen = self._rest = b""
        self.special = {}
        self.lines, self.values, self._block = NO_LINES, (), b""

    def drop(self, name: bytes) -> None:
        """Remove every field called `name` (lower case) from what is passed on."""
        self._seen = self._rest = b""  # what is left is no longer what that head said
        super().drop(name)

    # --- a head in common form --------------------------------------------------------------------

    def _is_common(self, head: bytes) -> bool:
        """Read `head` if it is a whole one in common form, as most are. False: read it with care.

        Raises a DownstreamError.
        """
        rest = self._rest
        if rest and head.endswith(rest):
            line = head[: -len(rest)]
            return self._parse(line + CRLF) and self._is_only_line(head, line)
        if not self._parse(head):
            return False
        fields = _INTAKE.fields
        shape = _SHAPES[tuple(fields)]
        if not shape.is_common:
            return False
        values = tuple(fields.values())
        rest = shape.whole % values
        line = head[: -len(rest)]
        if not head.endswith(rest) or not self._is_line(line):
            return False
        if not self._hold(shape, values):
            return False
        if shape.leads_to:
            self._block = head[len(line) + shape.leads_to + len(values[0]) : -2]
        self._check(shape.count)
        if self.is_quiet and not self.nominated and self.target[:1] == b"/":
            # An exchange acts on nothing of such a head but target and host, and changes it by `drop` alone.
            self._seen, self._rest = head, rest
        else:
            self._seen = self._rest = b""
        self._let_go(may_follow=self.keep_alive and not self.length)
        return True

    def _parse(self, data: bytes) -> bool:
        """Let llhttp take in all of `data`. Returns whether it found one start line and nothing to object."""
        _INTAKE.fields.clear()
        _INTAKE.starts.clear()
        parser = _IDLE_PARSERS.pop() if _IDLE_PARSERS else httptools.HttpRequestParser(_INTAKE)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        if len(_INTAKE.starts) != 1:
            self._has_more = True
            return False
        self.method, self.target = parser.get_method(), _INTAKE.starts[0]
        self._parser = parser
        return True

    def _is_line(self, line: bytes) -> bool:
        """Tell whether `line` is a request line in common form, and learn its version."""
        method, target = self.method, self.target
        self.http10 = False
        if line == b"%b %b HTTP/1.1\r\n" % (method, target):
            return True
        self.http10 = line == b"%b %b HTTP/1.0\r\n" % (method, target)
        return self.http10

    def _is_only_line(self, head: bytes, line: bytes) -> bool:
        """Take a head whose fields are those of the last one. line: what is in front of them."""
        target = self.target
        if not self._is_line(line) or self.http10 or target[:1] != b"/" or len(target) > self.uri_bytes:
            return False
        self._locate(target, self.special[b"host"])
        self.serial += 1
        self._seen = head
        self._let_go(may_follow=self.keep_alive)
        return True

    def _let_go(self, *, may_follow: bool) -> None:
        """Leave the parser to the next head, whoever sends it; not if it waits for a body or a close."""
        parser, self._parser = self._parser, None
        if may_follow and parser is not None and not _IDLE_PARSERS:
            _IDLE_PARSERS.append(parser)

    # --- any other head ---------------------------------------------------------------------------

    def _feed_piece(self, data: bytes) -> int:
        """Read a head that comes in pieces, or in an uncommon form."""
        skipped = 0
        if not self.held:
            stripped = data.lstrip(CRLF)  # RFC 9112 §2.2: empty lines before a request are ignored
            skipped = len(data) - len(stripped)
            data = stripped
            if not data:
                return -1
            self._begin()
        held = len(self.held)
        buffer = self.held + data
        end = buffer.find(HEAD_END, max(0, held - 3))
        piece = data if end < 0 else data[: end + 4 - held]
        self.held = buffer[: held + len(piece)]
        self._feed_parser(piece)
        self._bound()
        if end < 0:
            return -1
        if self._heads != 1 or self._parser is None:
            raise self._refusal(None)
        self.method = self._parser.get_method()
        head, self.held, self._parser = self.held, b"", None
        self._end(head)
        return skipped + len(piece)

    def _begin(self) -> None:
        """Let go of the last request, and read the next with our own callbacks."""
        self.method = self.target = self._seen = self._rest = b""
        self._pairs = []
        self._heads = 0
        self._parser = httptools.HttpRequestParser(self)

    def _end(self, head: bytes) -> None:
        """Sort and check what was read."""
        hosts = sum(name.lower() == b"host" for name, _ in self._pairs)
        count = self._arrange(_SORT)
        if hosts > 1:
            raise BadRequest("more than one Host field")
        self._check_request_line(head)
        self._check(count)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_headers_complete(self) -> None:
        self._heads += 1

    def _feed_parser(self, piece: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # the head is complete; whether to tunnel is decided by the upstream's answer
        except httptools.HttpParserError as exc:
            self._bound()
            raise self._refusal(exc) from exc

    def _bound(self) -> None:
        """Raise if what has come of a head is already too much."""
        if len(self.target) > self.uri_bytes:
            raise UriTooLong(f"the request target is longer than {self.uri_bytes} bytes")
        if len(self.held) > self.header_bytes:
            raise HeadTooLarge(f"the head is longer than {self.header_bytes} bytes")

    def _refusal(self, error: httptools.HttpParserError | None) -> DownstreamError:
        """Say in HTTP's words what llhttp refused, or did not take for a head."""
        if self.held.startswith(b"PRI * HTTP/2"):
            return UnsupportedVersion("HTTP/2 is not spoken here")
        if error is None:
            return BadRequest("the head is malformed")
        if isinstance(error.__context__, DownstreamError):
            return error.__context__
        if isinstance(error, httptools.HttpParserInvalidMethodError) and _LIKE_A_METHOD.match(self.held):
            return NotImplementedByUs("the gateway does not know the method")
        return BadRequest(str(error))

    # --- what the head says -----------------------------------------------------------------------

    def _check(self, count: int) -> None:
        """Set what depends on the whole head. count: its fields. Raises a DownstreamError."""
        target = self.target
        self.serial += 1
        if len(target) > self.uri_bytes:
            raise UriTooLong(f"the request target is longer than {self.uri_bytes} bytes")
        if count > self.header_fields:
            raise HeadTooLarge(f"the head has more than {self.header_fields} fields")
        special = self.special
        self._locate(target, special.get(b"host"))
        self.keep_alive = not self.http10
        self.length = 0
        self.expects_continue = False
        self.upgrade = b""
        self.nominated = NOTHING
        fields = len(special)
        if fields == 1 and not self.http10:
            self.is_quiet = True
            return
        self.is_quiet = fields == 2 and b"connection" in special and not self.http10
        self._obey(special)

    def _check_request_line(self, head: bytes) -> None:
        """Accept HTTP/1.0; refuse what llhttp lets pass: other spacing, protocols, versions."""
        head = head.lstrip(CRLF)
        line = head[: head.index(CRLF)]
        start = b"%b %b " % (self.method, self.target)
        version = line.removeprefix(start)
        self.http10 = version == b"HTTP/1.0"
        if version in (b"HTTP/1.0", b"HTTP/1.1") and line.startswith(start):
            return
        if _VERSION.fullmatch(version) and not version.startswith(b"HTTP/1."):
            raise UnsupportedVersion("only HTTP/1 is spoken here")
        raise BadRequest("the request line is malformed")

    def _locate(self, target: bytes, authority: bytes | None) -> None:
        """Find what the request is for (RFC 9112 §3.2, §3.3). authority: of the Host field."""
        if authority is None and not self.http10:
            raise BadRequest("the Host field is missing")
        self.host = "" if authority is None else host_of(authority)
        if target[:1] != b"/":
            target = self._unusual_target(target)
        if _HASH in target:
            raise BadRequest("the request target holds a fragment")
        path, mark, query = target.partition(b"?")
        self.path = normal_path(path) if path != b"*" else path
        self.query = mark + query

    def _unusual_target(self, target: bytes) -> bytes:
        """Return the origin form, or `*`, of a target that is not in origin form."""
        if self.method == b"CONNECT":
            raise NotImplementedByUs("the gateway is not a forward proxy")
        if target == b"*":
            if self.method != b"OPTIONS":
                raise BadRequest("only OPTIONS may ask for *")
            return target
        authority, origin = split_absolute(target)
        self.host = host_of(authority)  # RFC 9112 §3.2.2: it counts, whatever the Host field says
        self.special[b"host"] = authority
        if self.method == b"OPTIONS" and target.count(b"/") == 2 and b"?" not in target:
            return b"*"  # RFC 9112 §3.2.4: neither path nor query
        return origin

    def _obey(self, special: dict[bytes, bytes]) -> None:
        """Read the fields that govern the connection and the framing."""
        connection = special.get(b"connection")
        if connection is not None and connection != b"keep-alive":
            self.nominated = options = options_of(connection)
            self.keep_alive = b"close" not in options and (not self.http10 or b"keep-alive" in options)
        elif connection is not None:
            self.keep_alive = True
        length = special.get(b"content-length")
        if length is not None:
            self.length = int(length)
            if self.length > MAX_LENGTH:
                raise BadRequest("the Content-Length overflows")
        if b"transfer-encoding" in special:
            self._check_coding(special)
        if b"expect" in special:
            self.expects_continue = not self.http10 and special[b"expect"].lower() == b"100-continue"
        if b"upgrade" in special and b"upgrade" in self.nominated and not self.http10 and not self.length:
            protocols = special[b"upgrade"]
            self.upgrade = protocols if b"h2c" not in protocols.lower() else b""

    def _check_coding(self, special: dict[bytes, bytes]) -> None:
        """Accept exactly `chunked` (RFC 9112 §6.1, §6.3)."""
        if self.http10 or b"content-length" in special:
            raise BadRequest("Transfer-Encoding has no place in this request")
        codings = [coding.strip(b" \t") for coding in special[b"transfer-encoding"].lower().split(b",")]
        if codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
            raise BadRequest("chunked must be the last transfer coding, once")
        if len(codings) > 1:
            raise NotImplementedByUs("the gateway knows no transfer coding but chunked")
        self.length = CHUNKED_BODY


NOTHING: Final[frozenset[bytes]] = frozenset()
_HASH: Final = ord("#")  # a number: `bytes in bytes` takes ten times as long
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_LIKE_A_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+( |$)")
