"""The codec and the careful readers read alike: the same decision, the same bytes passed on.

The careful reader is the reference. A grammar makes heads that the codec mostly takes; bytes are changed,
heads are cut and put together. DEEP_HEADS=1000000 tries that many each way.
"""

import os
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.core.routing.table import Route, Service
from gateway.errors import BadResponse, GatewayError, HeadTooLarge, UriTooLong
from gateway.http1 import codec
from gateway.http1.heads import plain_name
from gateway.http1.request import RequestReader
from gateway.http1.response import MAX_HEAD_BYTES, ResponseReader
from gateway.worker.exchange.request_head import Forwarder, ForwardSettings, RequestIds
from gateway.worker.exchange.response_head import begun_head
from tests.effort import effort
from tests.unit.http1 import grammar

HEADS: Final = int(os.environ.get("DEEP_HEADS", "20000"))
LIMITS: Final = (4096, 40, 512)
OUR_DATE: Final = re.compile(rb"Date: [A-Z][a-z]{2}, [0-9]{2} [^\r]* GMT")
OUR_ID: Final = re.compile(rb"(?<=X-Request-ID: )[0-9a-f]{32}(?=\r)")
OUR_TRACE: Final = re.compile(rb"(?<=traceparent: 00-)[0-9a-f]{32}(?=-)")
OUR_SPAN: Final = re.compile(rb"(traceparent: 00-[0-9a-z]+-)[0-9a-f]{16}(?=-0)")
"""What differs from one head that we make to the next."""
pytestmark = pytest.mark.skipif(
    not codec.IS_NATIVE and os.environ.get("GATEWAY_REQUIRE_NATIVE") != "1",
    reason="the codec is not compiled",
)


Reader = RequestReader | ResponseReader
BY_REQUEST: Final = (
    *("method", "target", "path", "raw_path", "query", "host", "http10", "keep_alive", "length", "held"),
    *("expects_continue", "upgrade", "nominated", "has_claims", "special", "block", "marks"),
)
BY_RESPONSE: Final = ("status", "length", "keep_alive", "held", "has_date", "special", "block")


def said(reader: Reader) -> dict[str, Any]:
    """Return what a reader says of its last head."""
    names = BY_REQUEST if isinstance(reader, RequestReader) else BY_RESPONSE
    return {name: getattr(reader, name) for name in names}


def passed_on(reader: Reader) -> list[bytes]:
    """Return the heads that go out: to a service from a trusted proxy and from a stranger, or to a client."""
    if isinstance(reader, ResponseReader):
        head = begun_head(reader, b"", rechunks=reader.length < 0)
        return [OUR_DATE.sub(b"Date: now", head)]
    service = Service("s", "s", settings=ServiceSettings(routes=(RouteSettings(path="/"),)))
    routes = (Route(service), Route(service, path="/a", strip_prefix=True))
    heads = []
    for is_trusted, route in ((True, routes[1]), (False, routes[0])):  # the last drops what it may not say
        forwarder = Forwarder(
            peer="192.0.2.1",
            scheme=b"http",
            ids=RequestIds(),
            is_trusted=lambda address, answer=is_trusted: answer and address != "203.0.113.9",
            settings=ForwardSettings(gateway=b"gw", via=is_trusted),
        )
        head = OUR_ID.sub(b"ours", forwarder.head(reader, route, b"upstream"))
        if not forwarder.parent_id:
            head = OUR_TRACE.sub(b"ours", head)
        heads.append(OUR_SPAN.sub(rb"\g<1>ours", head))
    return heads


def outcome(reader: Reader, data: bytes, *, careful: bool = False) -> Any:
    """Read one head and return all that comes of it. careful: without the codec."""
    try:
        end = reader._feed_piece(data) if careful else reader.feed(data)
    except GatewayError as error:
        return type(error), str(error), reader.glimpse() if isinstance(reader, RequestReader) else None
    if end < 0:
        return end, reader.held
    return end, said(reader), passed_on(reader)


def request_readers() -> tuple[Reader, Reader]:
    return RequestReader(*LIMITS), RequestReader(*LIMITS)


def response_readers() -> tuple[Reader, Reader]:
    return ResponseReader(), ResponseReader()


KINDS: Final = {
    "request": (grammar.request, request_readers, codec.read_request),
    "response": (grammar.response, response_readers, codec.read_response),
}
Kind = tuple[Callable[[Random], bytes], Callable[[], tuple[Reader, Reader]], Callable[[bytes], object]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.mark.parametrize("number", range(8))
@pytest.mark.timeout(7_200)
def test_both_readers_read_alike(kind: Kind, number: int) -> None:
    make, readers, read = kind
    chance = Random(f"{number}-{os.environ.get('DEEP_SEED', '0')}")
    hits = 0
    for _ in range(HEADS // 8):
        data = grammar.mutated(make(chance), chance) + chance.choice((b"", b"", b"body", b"\r\n"))
        hits += read(data) is not None
        native, careful = readers()
        assert outcome(native, data) == outcome(careful, data, careful=True), data
    assert hits >= 0.6 * (HEADS // 8)


@given(st.randoms(use_true_random=False))
def test_request_that_differs_is_made_small(chance: Random) -> None:
    data = grammar.mutated(grammar.request(chance), chance)
    native, careful = request_readers()
    assert outcome(native, data) == outcome(careful, data, careful=True)


@given(st.binary(max_size=80).map(lambda tail: b"GET /" + tail) | st.binary(max_size=80))
def test_random_bytes_are_read_alike(data: bytes) -> None:
    for readers in (request_readers, response_readers):
        native, careful = readers()
        assert outcome(native, data) == outcome(careful, data, careful=True)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_head_cut_anywhere_reads_as_whole(seed: int) -> None:
    for make, readers, _ in KINDS.values():
        chance = Random(seed)
        data = grammar.mutated(make(chance), chance)
        whole = outcome(readers()[1], data, careful=True)
        for at in range(1, len(data)):
            native, careful = readers()
            results = []
            for reader in (native, careful):
                first = outcome(reader, data[:at], careful=reader is careful)
                rest = outcome(reader, data[at:], careful=reader is careful) if first[0] == -1 else None
                results.append((first, rest))
            assert results[0] == results[1], (data, at)
            first, second = results[0]
            if second is not None and whole[0] != -1 and isinstance(second[0], int) and second[0] >= 0:
                assert second[1:] == whole[1:], (data, at)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_pipelined_heads_are_read_alike(seed: int) -> None:
    chance = Random(seed)
    data = b"".join(grammar.mutated(grammar.request(chance), chance) for _ in range(6))
    native, careful = request_readers()
    at = 0
    while at < len(data):
        found = outcome(native, data[at:])
        assert found == outcome(careful, data[at:], careful=True), data[at:]
        if not isinstance(found[0], int) or found[0] < 0:
            break
        at += found[0]


@pytest.mark.parametrize("field", grammar.BAD_FRAMING)
def test_odd_framing_is_read_with_care(field: bytes) -> None:
    """Guards `chunked` with a tab behind it, which the codec took and llhttp refuses."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % field
    native, careful = request_readers()
    assert outcome(native, head) == outcome(careful, head, careful=True)


@pytest.mark.parametrize("name", [b"X-Forwarded-", b"x_forwarded_", b"X-Forwarded-By", b"X-REAL_IP"])
def test_a_strangers_claim_does_not_pass(name: bytes) -> None:
    """Guards a prefix test that let a name with nothing behind the prefix through."""
    reader = RequestReader(*LIMITS)
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\n%b: 6.6.6.6\r\n\r\n" % name)
    from_proxy, from_stranger = passed_on(reader)
    assert b"6.6.6.6" in from_proxy
    assert b"6.6.6.6" not in from_stranger


@pytest.mark.parametrize(
    "fields",
    [
        b"Via: 1.1 x",
        b"TE: trailers\r\nConnection: TE",
        b"Expect: 100-continue\r\nContent-Length: 3",
        b"Transfer-Encoding: chunked",
        b"X-Forwarded-For: 1.2.3.4",
        b"Content-Length: 0",
        b"X-Request-ID: a",
        b"traceparent: 00-%b-%b-01\r\ntracestate: a=1" % (b"1" * 32, b"2" * 16),
    ],
)
@pytest.mark.parametrize("target", [b"/", b"/caf%C3%A9?x=%20", b"//a//b"])
def test_usual_heads_are_the_codecs(fields: bytes, target: bytes) -> None:
    assert codec.read_request(b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % (target, fields))


def test_limits_are_left_to_the_careful_reader() -> None:
    head = b"GET /abc HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"
    limits = (len(head), 2, 4)
    reader = RequestReader(*limits)
    assert reader.feed(head) == len(head)
    assert reader.is_usual
    for place, error in enumerate((HeadTooLarge, HeadTooLarge, UriTooLong)):
        with pytest.raises(error):
            RequestReader(*(limit - (k == place) for k, limit in enumerate(limits))).feed(head)


def test_longest_head_of_a_response_is_taken_and_no_longer_one() -> None:
    line, end = b"HTTP/1.1 200 OK\r\nA: ", b"\r\n\r\n"
    longest = line + b"b" * (MAX_HEAD_BYTES - len(line + end)) + end
    assert ResponseReader().feed(longest) == MAX_HEAD_BYTES
    with pytest.raises(BadResponse):
        ResponseReader().feed(line + b"b" + longest.removeprefix(line))


@given(st.integers(0, 54), st.sampled_from(b"0123456789abcdefABF-_ g"), st.booleans(), st.booleans())
def test_a_traceparent_is_understood_alike_by_both(at: int, byte: int, zeros: bool, more: bool) -> None:
    """The codec looks at its form, and what looks usual is taken apart without another look."""
    trace, span = (
        (b"0" * 32, b"0" * 16) if zeros else (b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331")
    )
    value = bytearray(b"00-%b-%b-01" % (trace, span))
    value[at] = byte
    head = b"GET / HTTP/1.1\r\nHost: h\r\ntraceparent: %b%b\r\n\r\n" % (value, b"-" if more else b"")
    native, careful = request_readers()
    assert outcome(native, head) == outcome(careful, head, careful=True)
    assert isinstance(native, RequestReader)
    assert native.is_traced == bool(
        re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", native.special[b"traceparent"])
    )


@given(st.lists(st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}", fullmatch=True), max_size=8))
def test_no_field_is_without_its_mark(names: list[bytes]) -> None:
    """Nobody looks for a field whose mark is missing: a secret of ours would be passed on."""
    head = b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % b"".join(b"%b: 1\r\n" % name for name in names)
    for reader, is_careful in zip(request_readers(), (False, True), strict=True):
        if isinstance(outcome(reader, head, careful=is_careful)[0], int):
            assert isinstance(reader, RequestReader)
            for name in {plain_name(each) for each, _ in reader.pairs()}:
                assert reader.marks & codec.mark_of(name)


@pytest.mark.parametrize("plain", [False, True])
@given(st.integers(0, 2**32))
def test_both_find_the_same_field(plain: bool, seed: int) -> None:
    chance = Random(seed)
    lines = b"".join(
        b"%b: %b\r\n" % (n, chance.choice((b"", b"a: b"))) for n in (b"A", b"X_Y", b"x-y", b"Abc")
    )
    for name in (b"a", b"x-y", b"x_y", b"ab", b"abcd", b""):
        assert codec.find(lines, name, plain) == codec.find_plainly(lines, name, plain)


@settings(max_examples=effort(50, 200, 5_000))
@given(
    st.text("ab", max_size=40).map(str.encode),
    st.sampled_from((b"", b"a", b"ab", b"aab", b"babab", b"\x00", b"a" * 41)),
)
@example(b"\x00a", b"a")
def test_both_hold_the_same_words(block: bytes, word: bytes) -> None:
    assert codec.holds(block, word) == codec.holds_plainly(block, word)
