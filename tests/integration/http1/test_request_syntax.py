"""What is refused, with which status, before any upstream hears of it: RFC 9112 §2–§7, RFC 9110 §5, §7.2."""

import pytest

from gateway.core.routing.service import RouteSettings
from tests.integration.http1.proxying import GET, Upstream, proxying

HOST = b"Host: h\r\n"


def head(line: bytes = b"GET / HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


REFUSED = {
    "host missing (9112 §3.2)": (head(fields=b""), 400),
    "host twice, different (9112 §3.2)": (head(fields=HOST + b"Host: i\r\n"), 400),
    "host twice, equal (9112 §3.2)": (head(fields=HOST + HOST), 400),
    "host empty (9110 §4.2.1)": (head(fields=b"Host:\r\n"), 400),
    "host with a path (9110 §7.2)": (head(fields=b"Host: h/x\r\n"), 400),
    "host with userinfo (9110 §4.2.4)": (head(fields=b"Host: u@h\r\n"), 400),
    "host with two ports (9110 §7.2)": (head(fields=b"Host: h:1:2\r\n"), 400),
    "host of a dot": (head(fields=b"Host: .\r\n"), 400),
    "host with an empty label (1034 §3.5)": (head(fields=b"Host: h..\r\n"), 400),
    "host with an empty label inside": (head(fields=b"Host: h..i:80\r\n"), 400),
    "host with a list (9110 §7.2)": (head(fields=b"Host: h, i\r\n"), 400),
    "obs-fold (9112 §5.2)": (head(fields=HOST + b"X: a\r\n b\r\n"), 400),
    "space before colon (9112 §5.1)": (head(fields=HOST + b"X : a\r\n"), 400),
    "empty name (9110 §5.1)": (head(fields=HOST + b": a\r\n"), 400),
    "name that is no token (9110 §5.1)": (head(fields=HOST + b"X(: a\r\n"), 400),
    "line without colon (9112 §5)": (head(fields=HOST + b"X\r\n"), 400),
    "NUL in a value (9110 §5.5)": (head(fields=HOST + b"X: a\0b\r\n"), 400),
    "control character in a value (9110 §5.5)": (head(fields=HOST + b"X: a\x07b\r\n"), 400),
    "bare CR in a value (9112 §2.2)": (head(fields=HOST + b"X: a\rb\r\n"), 400),
    "bare LF ends a line (9112 §2.2)": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    "leading space in the first field (9112 §2.2)": (head(fields=b" X: a\r\n" + HOST), 400),
    "two spaces in the request line (9112 §3)": (head(b"GET  / HTTP/1.1"), 400),
    "space in the target (9112 §3.2)": (head(b"GET /a b HTTP/1.1"), 400),
    "no version (9112 §3)": (head(b"GET /"), 400),
    "other protocol (9112 §2.3)": (head(b"GET / RTSP/1.0"), 400),
    "HTTP/2 in the request line (9110 §15.6.6)": (head(b"GET / HTTP/2.0"), 505),
    "HTTP/2 preface (9113 §3.4)": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9 in the request line": (head(b"GET / HTTP/0.9"), 505),
    "method that is no token (9110 §9.1)": (head(b"G@T / HTTP/1.1"), 400),
    "CONNECT (9110 §9.3.6)": (head(b"CONNECT h:80 HTTP/1.1"), 501),
    "CONNECT with a path": (head(b"CONNECT / HTTP/1.1"), 501),
    "CONNECT with a url": (head(b"CONNECT http://h/ HTTP/1.1"), 501),
    "control character in the target": (head(b"GET /a\x01b HTTP/1.1"), 400),
    "websocket scheme (9112 §3.2.2)": (head(b"GET ws://h/ HTTP/1.1"), 400),
    "asterisk with GET (9112 §3.2.4)": (head(b"GET * HTTP/1.1"), 400),
    "authority-form with GET (9112 §3.2.3)": (head(b"GET h:80 HTTP/1.1"), 400),
    "other scheme (9112 §3.2.2)": (head(b"GET ftp://h/ HTTP/1.1"), 400),
    "fragment in the target (9112 §3.2)": (head(b"GET /a#b HTTP/1.1"), 400),
    "fragment behind a query (9112 §3.2)": (head(b"GET /a?b#c HTTP/1.1"), 400),
    "TLS to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "length signed (9110 §8.6)": (head(fields=HOST + b"Content-Length: +1\r\n") + b"a", 400),
    "length negative (9110 §8.6)": (head(fields=HOST + b"Content-Length: -1\r\n") + b"a", 400),
    "length hexadecimal (9110 §8.6)": (head(fields=HOST + b"Content-Length: 0x1\r\n") + b"a", 400),
    "length empty (9110 §8.6)": (head(fields=HOST + b"Content-Length:\r\n"), 400),
    "length with a space inside (9110 §8.6)": (
        head(fields=HOST + b"Content-Length: 1 1\r\n") + b"a" * 11,
        400,
    ),
    "length listed (9110 §8.6)": (head(fields=HOST + b"Content-Length: 1, 1\r\n") + b"a", 400),
    "length twice, equal (9112 §6.3)": (head(fields=HOST + b"Content-Length: 1\r\n" * 2) + b"a", 400),
    "length twice, different (9112 §6.3)": (
        head(fields=HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n") + b"aa",
        400,
    ),
    "length that overflows (9112 §6.3)": (
        head(fields=HOST + b"Content-Length: 18446744073709551617\r\n"),
        400,
    ),
    "length that overflows 63 bits (9112 §6.3)": (
        head(fields=HOST + b"Content-Length: 9223372036854775808\r\n"),
        400,
    ),
    "length and coding (9112 §6.1)": (
        head(fields=HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        400,
    ),
    "coding and length (9112 §6.1)": (
        head(fields=HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n") + b"0\r\n\r\n",
        400,
    ),
    "unknown coding before chunked (9112 §6.1)": (
        head(fields=HOST + b"Transfer-Encoding: gzip, chunked\r\n") + b"0\r\n\r\n",
        501,
    ),
    "chunked not last (9112 §6.3)": (head(fields=HOST + b"Transfer-Encoding: chunked, gzip\r\n"), 400),
    "chunked twice (9112 §6.1)": (head(fields=HOST + b"Transfer-Encoding: chunked, chunked\r\n"), 400),
    "two coding fields (9112 §6.1)": (head(fields=HOST + b"Transfer-Encoding: chunked\r\n" * 2), 400),
    "coding misspelt (9112 §7)": (head(fields=HOST + b"Transfer-Encoding: xchunked\r\n"), 400),
    "coding with a vertical tab": (head(fields=HOST + b"Transfer-Encoding: \x0bchunked\r\n"), 400),
    "coding on HTTP/1.0 (9112 §6.1)": (
        head(b"POST / HTTP/1.0", HOST + b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
        400,
    ),
    "coding identity (9112 §7)": (head(fields=HOST + b"Transfer-Encoding: identity\r\n"), 400),
    "path with a backslash": (head(b"GET /a\\b HTTP/1.1"), 400),
    "path with an escaped NUL": (head(b"GET /a%00 HTTP/1.1"), 400),
    "path with half an escape (3986 §2.1)": (head(b"GET /a%2 HTTP/1.1"), 400),
    "path with dots behind an encoded slash": (head(b"GET /a/..%2fb HTTP/1.1"), 400),
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
async def test_refused(request_bytes: bytes, status: int) -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        answer = await proxy.ask_to_the_end(request_bytes + GET)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert answer.count(b"HTTP/1.1 ") == 1, "what follows a refused request is not a request"
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nContent-Type: application/problem+json\r\n" in answer
    assert upstream.seen == []


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
async def test_refused_byte_by_byte(request_bytes: bytes, status: int) -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        for at in range(len(request_bytes)):
            client.send(request_bytes[at : at + 1])
            if at % 16 == 0:
                await client.writer.drain()
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert upstream.seen == []


CHUNKS = {
    "size that overflows (9112 §7.1)": b"ffffffffffffffff1\r\n",
    "size without digits (9112 §7.1)": b"\r\nabc\r\n0\r\n\r\n",
    "size with a sign (9112 §7.1)": b"+3\r\nabc\r\n0\r\n\r\n",
    "size with 0x (9112 §7.1)": b"0x3\r\nabc\r\n0\r\n\r\n",
    "size with a leading space (9112 §7.1)": b" 3\r\nabc\r\n0\r\n\r\n",
    "size line ends with LF (9112 §7.1)": b"3\nabc\r\n0\r\n\r\n",
    "chunk longer than its size (9112 §7.1)": b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk ends with LF (9112 §7.1)": b"3\r\nabc\n0\r\n\r\n",
    "extension too long": b"3;" + b"x" * 2000 + b"\r\nabc\r\n0\r\n\r\n",
    "extension with a bare CR (9112 §7.1.1)": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "trailer folded (9112 §5.2)": b"0\r\nA: b\r\n c\r\n\r\n",
    "trailer without a name (9112 §7.1.2)": b"0\r\n: b\r\n\r\n",
    "trailers without end": b"0\r\n" + b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 400,
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
async def test_malformed_chunks_are_refused_and_never_end_upstream(body: bytes) -> None:
    ends = []

    async def script(peer: object) -> None:
        ends.append(await peer.rest())  # type: ignore[attr-defined]

    async with proxying(Upstream(script)) as proxy:
        answer = await proxy.ask_to_the_end(
            head(b"POST / HTTP/1.1", HOST + b"Transfer-Encoding: chunked\r\n") + body
        )
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert not any(end.endswith(b"0\r\n\r\n") for end in ends)


@pytest.mark.parametrize(
    "value",
    [b"chunked", b"Chunked", b"CHUNKED", b"\tchunked"],
    ids=["plain", "title", "upper", "tab"],
)
async def test_chunked_is_understood_in_any_case_and_with_blanks(value: bytes) -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        answer = await proxy.ask(
            head(b"POST / HTTP/1.1", HOST + b"Transfer-Encoding: " + value + b"\r\n") + b"1\r\na\r\n0\r\n\r\n"
        )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in upstream.seen[0]


async def test_absolute_form_counts_more_than_host() -> None:
    """RFC 9112 §3.2.2."""
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        await proxy.ask(b"GET http://other:81/x?y HTTP/1.1\r\nHost: h\r\n\r\n")
    assert upstream.seen[0].startswith(b"GET /x?y HTTP/1.1\r\nHost: other:81\r\n")


@pytest.mark.parametrize("target", [b"*", b"http://h"])
async def test_options_asterisk_reaches_the_service(target: bytes) -> None:
    """RFC 9112 §3.2.4: an absolute form without path and query is the asterisk too."""
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        answer = await proxy.ask(b"OPTIONS %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert upstream.seen[0].startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_empty_lines_before_a_request_are_ignored() -> None:
    """RFC 9112 §2.2."""
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        assert (await proxy.ask(b"\r\n\r\n" + GET)).startswith(b"HTTP/1.1 200 ")


async def test_fragment_is_refused_also_behind_a_request_that_differs_only_there() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(GET)
        await client.answer()
        client.send(GET.replace(b"/a", b"/a?b#c"))
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert len(upstream.seen) == 1


async def test_get_with_a_body_does_not_become_two_requests() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(
            head(fields=HOST + b"Content-Length: %d\r\n" % len(GET)) + GET + head(b"GET /next HTTP/1.1")
        )
        await client.answer()
        await client.answer()
    assert [each.split()[1] for each in upstream.seen] == [b"/", b"/next"]


async def test_path_with_dot_segments_is_forwarded_as_it_was_routed() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        await proxy.ask(b"GET /a//b/%2e%2e/%7Ec/./d%2fe?q=%2e HTTP/1.1\r\nHost: h\r\n\r\n")
    assert upstream.seen[0].startswith(b"GET /a/~c/d%2Fe?q=%2e HTTP/1.1\r\n")


async def test_path_without_dot_segments_is_forwarded_as_it_came() -> None:
    """Signatures are made over these bytes, and urls and keys nested in them (`curl 'http://h/?q=Zürich'`)."""
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        await proxy.ask(b"GET /f/https://e.org//%7Ex%2fy%0d?q=Z\xc3\xbcrich HTTP/1.1\r\nHost: h\r\n\r\n")
    assert upstream.seen[0].startswith(b"GET /f/https://e.org//%7Ex%2fy%0d?q=Z%C3%BCrich HTTP/1.1\r\n")


@pytest.mark.parametrize("method", [b"LIST", b"VERSION-CONTROL", b"BITS_POST", b"BREW", b"get"])
async def test_any_method_is_forwarded_with_its_body_and_never_twice(method: bytes) -> None:
    """RFC 9110 §9.1: a method is any token; what is not known to be idempotent is sent once."""
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    async with proxying(upstream) as proxy:
        answer = await proxy.ask(head(method + b" /x HTTP/1.1", HOST + b"Content-Length: 3\r\n") + b"abc")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert list(proxy.counts("v1").requests) == [("OTHER", 503)]
    assert [each.split(b"\r\n")[0] for each in upstream.seen] == [method + b" /x HTTP/1.1"]


async def test_method_no_route_takes_is_405_with_those_that_do() -> None:
    """RFC 9110 §15.5.6, §10.2.1."""
    upstream = Upstream()
    routes = (RouteSettings(path="/a", methods=("GET", "LIST")), RouteSettings(path="/a/b", methods=("PUT",)))
    async with proxying(upstream, routes=routes) as proxy:
        refused = await proxy.ask(head(b"POST /a/b/c HTTP/1.1"))
        assert refused.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: GET, HEAD, LIST, PUT\r\n" in refused
        assert (await proxy.ask(head(b"POST /x HTTP/1.1"))).startswith(b"HTTP/1.1 404 ")
        assert (await proxy.ask(head(b"LIST /a/b/c HTTP/1.1"))).startswith(b"HTTP/1.1 200 ")


async def test_http10_request_without_host_names_none_upstream() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        await proxy.ask(b"GET /a HTTP/1.0\r\n\r\n")
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % upstream.port in upstream.seen[0]
    assert b"x-forwarded-host" not in upstream.seen[0].lower()
    assert b"\r\nX-Forwarded-Port: 80\r\nForwarded: for=127.0.0.1;proto=http\r\n" in upstream.seen[0]
