"""A request's head, from bytes to what the proxy decides on.

A head in common form is read by the codec. Any other is read with care: the request line here, strictly, the
fields, and with them the framing, by llhttp. It is given a request line of its own in front of them: it
refuses methods it does not know, and targets in UTF-8. What a head says is judged below, whoever has read it.
"""

import re
from typing import Final

import httptools

from gateway.errors import (
    BadRequest,
    HeadTooLarge,
    NotImplementedByUs,
    UnsupportedVersion,
    UriTooLong,
)
from gateway.http1 import codec
from gateway.http1.heads import Head, Pair, plain_name
from gateway.http1.message import CRLF, HEAD_END, MAX_LENGTH, members_of, options_of
from gateway.http1.target import ascii_target, host_of, normal_path, split_absolute

SPECIAL: Final = frozenset(
    (
        b"cdn-loop",
        b"connection",
        b"content-length",
        b"expect",
        b"forwarded",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"traceparent",
        b"tracestate",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-request-id",
    )
)
"""Fields of this connection, or that the gateway writes itself: kept apart in `special`."""

CHUNKED_BODY: Final = -1
"""`length` of a request whose body is chunked."""

_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~\x80-\xff]+) HTTP/([0-9]\.[0-9])")
"""Method, target, version (RFC 9112 §3). What a target may hold is looked at later."""
_LINE_SO_FAR: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?: (?:([!-~\x80-\xff]+)(?: [ -~]*\r?)?)?)?"
)
"""What may become a request line when more of it comes."""
_STAND_IN: Final = {False: b"POST / HTTP/1.1\r\n", True: b"POST / HTTP/1.0\r\n"}
"""The request line llhttp reads: to it, POST is like any method but HEAD and CONNECT."""
_HASH: Final = ord("#")
NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_NO_PAIRS: Final[list[Pair]] = []
"""Nobody adds to it: each head that is read with care gets a list of its own."""
_read_request: Final = codec.read_request


def _is_kept(name: bytes) -> bool:
    """Tell whether a field is passed on as it came: not one of ours, for proxies alone, or in disguise.

    Services in the manner of CGI read `X_Forwarded_For` as X-Forwarded-For, and `Proxy` as a setting of
    their own (CVE-2016-5385).
    """
    return plain_name(name) not in SPECIAL and name != b"proxy" and not name.startswith(b"proxy-")


def is_claim(name: bytes) -> bool:
    """Tell whether a field, by its plain name, says of the client what only a trusted proxy may say."""
    return name.startswith(b"x-forwarded-") or name == b"x-real-ip"


class RequestReader(Head):
    """Reads the heads of one connection's requests, one after the other; holds the fields of the latest.

    `feed` until it returns an offset; then the attributes describe the request until the next `feed`.
    """

    __slots__ = (
        "_fed",
        "_heads",
        "_parser",
        "_read",
        "expects_continue",
        "has_claims",
        "header_bytes",
        "header_fields",
        "held",
        "host",
        "http10",
        "is_traced",
        "is_usual",
        "keep_alive",
        "length",
        "marks",
        "method",
        "nominated",
        "path",
        "query",
        "raw_path",
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
        """Any token (RFC 9110 §9.1)."""
        self.target = b""
        """As it came."""
        self.path = b""
        """Normalised, without the query: what routes are matched on; `*` for `OPTIONS *`."""
        self.raw_path = b""
        """The client's own bytes of it, those that are no ASCII percent-encoded."""
        self.query = b""
        """With its question mark, or empty."""
        self.host = ""
        """Lower case, without port; empty for an HTTP/1.0 request that names none."""
        self.has_claims = False
        """Whether a field that is passed on says of the client what only a trusted proxy may say."""
        self.is_usual = False
        """Known to hold no fields but those passed on, Host, a length, and what proxies say of the client."""
        self.is_traced = False
        """Known to hold a `traceparent` of version 00, all digits in their places."""
        self.marks = 0
        """Of the names passed on (`codec.mark_of`): one without its mark is not among them."""
        self.http10 = False
        self.keep_alive = True
        self.length = 0
        """Bytes of body; CHUNKED_BODY; 0: none."""
        self.expects_continue = False
        self.upgrade = b""
        """The protocols asked for, if the request really asks to upgrade (RFC 9110 §7.8)."""
        self.nominated: frozenset[bytes] = frozenset()
        """Lower-case options of the Connection field."""
        self.held = b""
        """Part of a head whose end has not come."""
        self._parser: httptools.HttpRequestParser | None = None
        """Once the request line is read."""
        self._fed = 0
        """How much of `held` is read."""
        self._read: list[Pair] = _NO_PAIRS
        self._heads = 0

    def feed(self, data: bytes) -> int:
        """Read a head. Returns how many bytes of `data` belong to it, or -1 while it is incomplete.

        Raises a DownstreamError; nothing further can be read from that connection then.
        """
        if not self.held:
            read = _read_request(data)
            if read is not None and self._has_room(read):
                return self._take(read)
        return self._feed_piece(data)

    def _has_room(self, read: codec.Request) -> bool:
        """Tell whether a head the codec has read is within the limits. The careful reader refuses others."""
        header_bytes, header_fields, target = read[0], read[1], read[3]
        return (
            header_bytes <= self.header_bytes
            and header_fields <= self.header_fields
            and len(target) <= self.uri_bytes
        )

    def _take(self, read: codec.Request) -> int:
        """Take a head that the codec has read."""
        (
            end,
            _fields,
            self.method,
            self.target,
            self.path,
            self.raw_path,
            self.query,
            host,
            self.length,
            self.special,
            self.block,
            self.has_claims,
            self.is_usual,
            self.marks,
            self.is_traced,
        ) = read
        self.http10 = False
        if host is None:
            self._locate_host()
        else:
            self.host = host
        if self.is_usual:
            self.keep_alive = True
            self.expects_continue = False
            self.nominated = NO_OPTIONS
            self.upgrade = b""
        else:
            self._obey(self.special)
        return end

    def _feed_piece(self, data: bytes) -> int:
        """Read with care a head that is in no common form, or comes in pieces."""
        skipped = 0
        if not self.held:
            stripped = data.lstrip(CRLF)  # RFC 9112 §2.2: empty lines before a request are ignored
            skipped = len(data) - len(stripped)
            data = stripped
            if not data:
                return -1
            self._begin()
        held = len(self.held)
        head = self.held + data
        end = head.find(HEAD_END, max(0, held - 3)) + 4
        if end >= 4:
            head = head[:end]
        self.held = head
        self._read_more(head)
        if len(head) > self.header_bytes:
            raise HeadTooLarge(f"the head is longer than {self.header_bytes} bytes")
        if end < 4:
            return -1
        self._end()
        self.held = b""
        return skipped + end - held

    def glimpse(self) -> tuple[bytes, bytes]:
        """Return the method and the target of a head that is refused, as far as they are known."""
        start = _LINE_SO_FAR.match(self.held)
        method = self.method or (start[1] if start else b"")
        return method[:32], self.target[: self.uri_bytes]

    def close(self) -> None:
        """There will be no other head: drop the parser of one that never ended, which refers back."""
        self._parser = None
        self.held = b""

    # --- from bytes to fields ---------------------------------------------------------------------

    def _begin(self) -> None:
        self.method = self.target = b""
        self.is_usual = self.is_traced = False
        self._parser = None
        self._read = []
        self._heads = 0

    def _read_more(self, head: bytes) -> None:
        """Read what is new of a head. Raises a DownstreamError."""
        if self._parser is None:
            end = head.find(CRLF)
            if end < 0:
                self._check_start(head)
                return
            self._read_line(head[:end])
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(_STAND_IN[self.http10])
            self._fed = end + 2
        try:
            self._parser.feed_data(head[self._fed :])
        except httptools.HttpParserUpgrade:
            pass  # the head is complete; whether to tunnel is decided by the upstream's answer
        except httptools.HttpParserError as exc:
            raise BadRequest(str(exc)) from exc
        self._fed = len(head)

    def _check_start(self, start: bytes) -> None:
        """Raise if this can not become a request line any more."""
        match = _LINE_SO_FAR.fullmatch(start)
        if match is None:
            raise BadRequest("the request line is malformed")
        self._bound(match[2] or b"")

    def _bound(self, target: bytes) -> None:
        if len(target) > self.uri_bytes:
            raise UriTooLong(f"the request target is longer than {self.uri_bytes} bytes")

    def _read_line(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadRequest("the request line is malformed")
        self.method, self.target, version = match.groups()
        self._bound(self.target)
        if not version.startswith(b"1."):
            raise UnsupportedVersion("only HTTP/1 is spoken here")
        if version not in (b"1.0", b"1.1"):
            raise BadRequest("the request line is malformed")
        if self.method == b"CONNECT":
            raise NotImplementedByUs("the gateway is not a forward proxy")
        self.http10 = version == b"1.0"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field from llhttp."""
        self._read.append((name, value))

    def on_headers_complete(self) -> None:
        """Learn from llhttp that the head has ended."""
        self._heads += 1

    def _end(self) -> None:
        """Sort and check what was read. Raises a DownstreamError."""
        pairs, self._read, self._parser = self._read, _NO_PAIRS, None
        if self._heads != 1:
            raise BadRequest("the head is malformed")
        if len(pairs) > self.header_fields:
            raise HeadTooLarge(f"the head has more than {self.header_fields} fields")
        if sum(name.lower() == b"host" for name, _ in pairs) > 1:
            raise BadRequest("more than one Host field")
        self.sort(pairs, SPECIAL, _is_kept)
        kept = [name for name, _ in pairs if _is_kept(name.lower())]
        self.has_claims = any(is_claim(plain_name(name)) for name in kept)
        self.marks = 0
        for name in kept:
            self.marks |= codec.mark_of(name)
        self._locate()
        self._obey(self.special)

    # --- what the head says -----------------------------------------------------------------------

    def _locate_host(self) -> None:
        """Find whom the request is for by its Host field (RFC 9112 §3.2)."""
        authority = self.special.get(b"host")
        if authority is None and not self.http10:
            raise BadRequest("the Host field is missing")
        self.host = "" if authority is None else host_of(authority)

    def _locate(self) -> None:
        """Find what the request is for (RFC 9112 §3.2, §3.3)."""
        self._locate_host()
        target = self.target if self.target[:1] == b"/" else self._unusual_target(self.target)
        if _HASH in target:
            raise BadRequest("the request target holds a fragment")
        path, mark, query = ascii_target(target).partition(b"?")
        self.raw_path = path
        self.path = normal_path(path) if path != b"*" else path
        self.query = mark + query

    def _unusual_target(self, target: bytes) -> bytes:
        """Return the origin form, or `*`, of a target that is not in origin form."""
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
        if connection is None or (connection == b"keep-alive" and not self.http10):
            options = NO_OPTIONS
        else:
            options = options_of(connection)
        self.nominated = options
        self.keep_alive = b"close" not in options and (not self.http10 or b"keep-alive" in options)
        length = special.get(b"content-length")
        self.length = 0 if length is None else int(length)
        if self.length > MAX_LENGTH:
            raise BadRequest("the Content-Length overflows")
        if b"transfer-encoding" in special:
            self._check_coding(special)
        expectation = special.get(b"expect")
        self.expects_continue = expectation is not None and self._is_continue(expectation)
        self.upgrade = b""
        if b"upgrade" in options and not self.http10:
            # h2c would carry requests past every check made here (RFC 7540 §3.2).
            protocols = members_of(special.get(b"upgrade", b""))
            self.upgrade = b", ".join(each for each in protocols if each.lower() != b"h2c")

    def _is_continue(self, expectation: bytes) -> bool:
        """Tell whether a client waits for a 100 (RFC 9110 §10.1.1)."""
        return not self.http10 and expectation.lower() == b"100-continue"

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
