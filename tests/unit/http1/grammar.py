"""Heads as peers send them and as attackers might, from a source of chance: mostly in common form."""

from random import Random
from typing import Final

METHODS: Final = (b"GET", b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"PATCH", b"DELETE", b"LIST", b"X-Y")
PATHS: Final = (
    *(
        b"/",
        b"/api/v1/orders/17",
        b"/a/b/",
        b"//",
        b"/a//b",
        b"/a%20b",
        b"/caf%C3%A9",
        b"/%7Euser/%41",
        b"/a;v=1",
    ),
    *(
        b"/x.js",
        b"/a/%2fb%5c/c",
        b"/%41%2f%61",
        b'/a"b|c',
        b"/a/..b",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/%00",
        b"/a\\b",
    ),
    *(
        b"/.well-known/x",
        b"/a/./b",
        b"/a/../b",
        b"/a/%2e%2E/b",
        b"/%2f..%2fb",
        b"/a/..;x",
        b"/%2E",
        b"/a#b",
        b"/\xc3\xa9",
    ),
)
QUERIES: Final = (b"", b"", b"?", b"?a=b&c=%zz", b"?q=a//b/../c", b"?x=\\", b"?a#b", b"?\xfc", b"??")
HOSTS: Final = (
    b"h",
    b"Shop.Example.com",
    b"h:8080",
    b"[::1]:80",
    b"h.",
    b"h:",
    b"h:99999",
    b"a b",
    b"",
    b"h/x",
    b"[::g]",
)
FREE: Final = (
    *(
        b"Accept: */*",
        b"User-Agent: Mozilla/5.0 (X11; Linux)",
        b"Cookie: a=b; c=d",
        b"Empty: ",
        b"X: \xfc\xff",
        b"Within: a  b\tc",
    ),
    *(
        b"trace-parent: 00-ab-cd-01",
        b"X-Request-Idea: 1",
        b"A!#$%&'*+-.^_`|~1: v",
        b"colon: a:b",
    ),
    *(
        b"Via-Not: 1",
        b"Dat: e",
        b"proxy_x: kept",
        b"Content_Type: text/plain",
        b"Date: now",
        b"X-Service-Version: v1",
    ),
)
ACTED_ON: Final = (
    *(
        b"Connection: keep-alive",
        b"Connection: close",
        b"connection: Keep-Alive, X-Gone",
        b"Connection: TE",
        b"Connection: upgrade",
    ),
    *(
        b"X-Request-ID: abc-123",
        b"X-Request-Id: not an id",
        b"x-request-id: ",
        b"traceparent: 00-ab-cd-01",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"TraceState: a=1,b@c=2",
        b"tracestate: ",
        b"TE: trailers",
        b"TE: gzip",
        b"Via: 1.1 front",
    ),
    *(
        b"X-Forwarded-For: 203.0.113.9, 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: h:1",
        b"X-Forwarded-Port: 443",
    ),
    *(
        b"Forwarded: for=1.2.3.4;proto=https",
        b"CDN-Loop: gw; s=x",
        b"Max-Forwards: 3",
        b"Trailer: X-Sum",
        b"Keep-Alive: 5",
    ),
    *(
        b"Upgrade: websocket",
        b"HTTP2-Settings: AA",
        b"Expect: 100-continue",
        b"Expect: 200",
        b"Proxy-Authorization: x",
    ),
)
FRAMING: Final = (
    *(
        b"Content-Length: 0",
        b"Content-Length: 17",
        b"content-length: 007",
        b"Content-Length: 9223372036854775807",
    ),
    *(b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED"),
)
BAD_FRAMING: Final = (
    *(b"Transfer-Encoding: chunked\t", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked "),
    *(b"Content-Length: 5\t", b"Content-Length:\t5", b"Content-Length: 5 ", b"Transfer-Encoding:  chunked"),
    *(
        b"Content-Length: +1",
        b"Content-Length: 1,1",
        b"Content-Length:",
        b"Content-Length: 99999999999999999999",
    ),
    *(
        b"Content-Length: 1 2",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding:",
    ),
    *(
        b"Transfer-Encoding: identity",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"Content-Length : 5",
    ),
)
CLAIMS: Final = (
    *(
        b"X-Forwarded-: 6.6.6.6",
        b"X-Real-IP: 6.6.6.6",
        b"X_Forwarded_For: 6.6.6.6",
        b"x-forwarded_proto: https",
        b"X_Real-IP: 6",
    ),
    *(
        b"X-Forwarded-Server: s",
        b"x_forwarded_: a",
        b"Proxy: http://evil",
        b"Proxy-Anything: x",
        b"X-Forwarded: no",
        b"proxy: x",
    ),
    *(
        b"X_Request_Id: x",
        b"T_E: x",
        b"Cdn_Loop: x",
        b"Proxy_Authorization: x",
        b"Proxy-Connection: close",
        b"via_: x",
    ),
)
ODD: Final = (
    *(
        b" folded",
        b"\tfolded",
        b"no colon",
        b": no name",
        b"Bad Name: x",
        b"Ctl: a\x01b",
        b"Nul: a\0b",
        b"Del: a\x7fb",
    ),
    *(b"Cr: a\rb", b"Lf: a\nB: c", b"N\xe4me: x", b"X: y\r\nHost: twice", b"Host: h", b"\r", b""),
)
ODD_BLANKS: Final = (
    *(
        b"Empty:",
        b"Blank:  ",
        b"Blank: \t",
        b"NoSpace:v",
        b"Spaces:   a b  ",
        b"Behind: a ",
        b"Tabs:\ta\t",
        b"Tab: a\t",
    ),
    *(
        b"Connection: close ",
        b"Connection:keep-alive",
        b"x-request-id:",
        b"tracestate:",
        b"X-Forwarded-For:1.2.3.4\t",
        b"Date:\tnow",
    ),
)
"""Around a value: any but one space in front of it."""
STATUS_LINES: Final = (
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 404 Not Found",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 304 Not Modified",
    ),
    *(b"HTTP/1.1 503 ", b"HTTP/1.1 500", b"HTTP/1.1 426 Upgrade Required", b"HTTP/1.1 299 \xfc\t x"),
)
ODD_STATUS_LINES: Final = (
    *(
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 99 x",
        b"HTTP/1.1 1000 x",
    ),
    *(
        b"HTTP/1.1  200 OK",
        b"http/1.1 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 20x OK",
        b"HTTP/1.1 200 a\x01",
    ),
)
SPICES: Final = (
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":",
    b"\0",
    b"#",
    b"\r\n\r\n",
    b"\t",
    b"%2e",
    b"_",
    b"Content-Length: 4\r\n",
)


def request(chance: Random) -> bytes:
    """Return a request's head, most often one a client might really send."""
    is_odd = chance.random() < 0.1
    paths = PATHS if is_odd else PATHS[:14]
    version = (
        chance.choice((b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"))
        if chance.random() < 0.04
        else b"HTTP/1.1"
    )
    target = chance.choice(paths) + chance.choice(QUERIES if is_odd else QUERIES[:6])
    if chance.random() < 0.02:
        target = chance.choice((b"*", b"http://h/x", b"h:1", b"", b"http://Other:1", b"?a"))
    method = (
        chance.choice(METHODS)
        if chance.random() < 0.98
        else chance.choice((b"CONNECT", b"", b"G T", b"g\xe4"))
    )
    lines = [chance.choice(FREE) for _ in range(chance.randrange(6))]
    lines += chance.sample(ACTED_ON, chance.choice((0, 0, 1, 1, 2)))
    if chance.random() < 0.98:
        lines.append(b"Host: " + chance.choice(HOSTS if is_odd else HOSTS[:6]))
    if chance.random() < 0.3:
        lines.append(chance.choice(FRAMING))
    lines += spoilt_lines(chance)
    chance.shuffle(lines)
    return b"\r\n".join([b"%b %b %b" % (method, target, version), *lines, b"", b""])


def response(chance: Random) -> bytes:
    """Return a response's head, most often one a server might really send."""
    line = chance.choice(STATUS_LINES) if chance.random() < 0.92 else chance.choice(ODD_STATUS_LINES)
    lines = [chance.choice(FREE) for _ in range(chance.randrange(7))]
    lines += chance.sample(ACTED_ON, chance.choice((0, 0, 0, 1)))
    if chance.random() < 0.8:
        lines.append(chance.choice(FRAMING))
    lines += spoilt_lines(chance)
    chance.shuffle(lines)
    return b"\r\n".join([line, *lines, b"", b""])


def spoilt_lines(chance: Random) -> list[bytes]:
    """Return, now and then, lines that are an attack or a fault."""
    lines = []
    if chance.random() < 0.15:
        lines.append(chance.choice(CLAIMS))
    if chance.random() < 0.05:
        lines.append(chance.choice(ODD_BLANKS))
    if chance.random() < 0.04:
        lines.append(chance.choice(BAD_FRAMING))
    if chance.random() < 0.04:
        lines.append(chance.choice(ODD))
    return lines


def mutated(head: bytes, chance: Random) -> bytes:
    """Return `head`, one time in ten with a few bytes changed."""
    if chance.random() < 9 / 10:
        return head
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(head) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            head = head[:at] + chance.choice(SPICES) + head[at:]
        elif kind == 1:
            head = head[:at] + head[at + 1 :]
        elif kind == 2:
            head = head[:at] + bytes((chance.randrange(256),)) + head[at + 1 :]
        else:
            head = head[:at] + head[at:].swapcase()
    return head
