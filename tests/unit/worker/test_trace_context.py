"""Trace context (https://www.w3.org/TR/trace-context/), case by case as the W3C's own suite asks."""

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.request import RequestReader
from gateway.worker.exchange.request_head import Forwarder, ForwardSettings, RequestIds
from gateway.worker.exchange.trace_context import parsed_parent, sound_state

TRACE: Final = b"0af7651916cd43dd8448eb211c80319c"
SPAN: Final = b"b7ad6b7169203331"
PARENT: Final = b"00-%b-%b-01" % (TRACE, SPAN)
OURS: Final = re.compile(rb"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])\r\n")


@pytest.mark.parametrize("flags", [b"00", b"01", b"02", b"03", b"ff", b"fe"])
def test_last_flag_says_whether_a_trace_is_sampled(flags: bytes) -> None:
    assert parsed_parent(b"00-%b-%b-%b" % (TRACE, SPAN, flags)) == (TRACE, SPAN, bool(int(flags, 16) & 1))


@pytest.mark.parametrize("rest", [b"", b"-", b"-what-the-future-will-be-like", b"--"])
def test_version_of_the_future_is_read_as_far_as_it_is_like_ours(rest: bytes) -> None:
    for version in (b"01", b"cc", b"fe"):
        assert parsed_parent(b"%b-%b-%b-01%b" % (version, TRACE, SPAN, rest)) == (TRACE, SPAN, True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"ff-%b-%b-01" % (TRACE, SPAN),
        b"FF-%b-%b-01" % (TRACE, SPAN),
        PARENT + b"-",
        PARENT + b"-what-the-future-will-be-like",
        PARENT + b".",
        b"cc-%b-%b-01.what" % (TRACE, SPAN),
        b"cc-%b-%b-011" % (TRACE, SPAN),
        PARENT.upper(),
        b"00-%b-%b-01" % (TRACE.upper(), SPAN),
        b"00-%b-%b-01" % (TRACE, SPAN.upper()),
        b"0-%b-%b-01" % (TRACE, SPAN),
        b"000-%b-%b-01" % (TRACE, SPAN),
        b".0-%b-%b-01" % (TRACE, SPAN),
        b"00-%b-%b-01" % (b"0" * 32, SPAN),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE[:-1], SPAN),
        b"00-%b0-%b-01" % (TRACE, SPAN),
        b"00-.%b-%b-01" % (TRACE[1:], SPAN),
        b"00-%b-%b-01" % (TRACE, SPAN[:-1]),
        b"00-%b-%b-1" % (TRACE, SPAN),
        b"00-%b-%b-001" % (TRACE, SPAN),
        b"00-%b-%b-.0" % (TRACE, SPAN),
        b"00-%b-%b" % (TRACE, SPAN),
        b"00-%b-%b-" % (TRACE, SPAN),
        PARENT + b", " + PARENT,
        PARENT + b"\n",
        b" ".join(PARENT.split(b"-")),
    ],
)
def test_malformed_parent_is_none(value: bytes) -> None:
    assert parsed_parent(value) is None


@pytest.mark.parametrize(
    ("value", "passed_on"),
    [
        (b"foo=1", b"foo=1"),
        (b"foo=1,bar=2", b"foo=1,bar=2"),
        (b"foo=1 \t , \t bar=2, \t baz=3", b"foo=1,bar=2,baz=3"),
        (b"foo=1,,bar=2,", b"foo=1,bar=2"),
        (b"foo=1,foo=1", b"foo=1,foo=1"),
        (b"", b""),
        (b", ,", b""),
        (b"foo = 1", b""),
        (b"foo=1\tx", b""),
        (b"foo", b""),
        (b"foo=", b""),
        (b"=1", b""),
        (b"foo=bar=baz", b""),
        (b"Foo=1", b""),
        (b"1foo=1", b""),
        (b"1foo@v=1", b"1foo@v=1"),
        (b"foo@=1,bar=2", b""),
        (b"@foo=1", b""),
        (b"foo@bar@baz=1", b""),
        (b"foo@1bar=1", b""),
        (b"foo-_*/=1", b"foo-_*/=1"),
        (b"f\xc3\xb6=1", b""),
        (b"z" * 256 + b"=1", b"z" * 256 + b"=1"),
        (b"z" * 257 + b"=1", b""),
        (b"t" * 241 + b"@" + b"v" * 14 + b"=1", b"t" * 241 + b"@" + b"v" * 14 + b"=1"),
        (b"t" * 242 + b"@v=1", b""),
        (b"t@" + b"v" * 15 + b"=1", b""),
        (b"a=" + b"v" * 256, b"a=" + b"v" * 256),
        (b"a=" + b"v" * 257, b""),
    ],
)
def test_state_is_passed_on_whole_or_not_at_all(value: bytes, passed_on: bytes) -> None:
    assert sound_state(value) == passed_on


def test_state_of_more_than_32_members_is_dropped() -> None:
    members = [b"a%d=1" % index for index in range(33)]
    assert sound_state(b",".join(members[:32])) == b",".join(members[:32])
    assert sound_state(b",".join(members)) == b""


def test_of_a_state_that_is_too_long_the_long_members_go_first_then_the_oldest() -> None:
    short = [b"s%02d=" % index + b"v" * 60 for index in range(7)]
    assert sound_state(b",".join([*short, b"a=" + b"v" * 200])) == b",".join(short)
    assert sound_state(b",".join([short[0], b"a=" + b"v" * 200])) == short[0] + b",a=" + b"v" * 200
    many = [b"s%02d=" % index + b"v" * 60 for index in range(20)]
    kept = sound_state(b",".join(many))
    assert len(kept) <= 512
    assert many[:7] == kept.split(b",")


def forwarded(fields: bytes, *, is_trusted: bool = False, sample: float = 0.0) -> tuple[Forwarder, bytes]:
    reader = RequestReader(16_384, 100, 4_096)
    reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    forwarder = Forwarder(
        peer="192.0.2.1",
        scheme=b"http",
        ids=RequestIds(),
        is_trusted=lambda _: is_trusted,
        settings=ForwardSettings(sample=sample),
    )
    return forwarder, forwarder.head(reader, None, b"h")


def ours(head: bytes) -> tuple[bytes, bytes, bytes]:
    """Return trace id, span id and flags of the only traceparent of a head."""
    (found,) = OURS.findall(head)
    assert head.lower().count(b"traceparent") == 1
    return found


def test_trace_begins_here_if_nobody_names_one() -> None:
    forwarder, head = forwarded(b"tracestate: a=1\r\n")
    assert ours(head) == (forwarder.trace_id, forwarder.span_id, b"00")
    assert b"tracestate" not in head
    assert ours(forwarded(b"")[1])[:2] != ours(head)[:2]


def test_sound_trace_goes_on_under_a_span_of_ours() -> None:
    forwarder, head = forwarded(b"TraceParent: \t%b \r\ntracestate: a=1\r\nTraceState: b=2\r\n" % PARENT)
    trace_id, span_id, _ = ours(head)
    assert (trace_id, forwarder.parent_id) == (TRACE, SPAN)
    assert span_id not in (SPAN, b"0" * 16)
    assert b"\r\ntracestate: a=1,b=2\r\n" in head


@pytest.mark.parametrize(
    "fields",
    [
        b"traceparent: %b\r\ntraceparent: %b\r\n" % (PARENT, PARENT),
        b"traceparent: %b\r\nTraceParent: nonsense\r\n" % PARENT,
        b"traceparent: %b, %b\r\n" % (PARENT, PARENT),
        b"traceparent: ff-%b\r\n" % PARENT[3:],
        b"traceparent:\r\n",
    ],
)
def test_what_is_no_single_sound_parent_is_replaced_and_its_state_dropped(fields: bytes) -> None:
    forwarder, head = forwarded(fields + b"tracestate: a=1\r\n")
    assert ours(head)[0] == forwarder.trace_id != TRACE
    assert forwarder.parent_id == b""
    assert b"tracestate" not in head


def test_only_a_trusted_proxy_says_what_is_sampled() -> None:
    for sample, is_trusted, flags, expected in (
        (0.0, False, b"01", b"00"),
        (0.0, True, b"01", b"01"),
        (100.0, False, b"00", b"01"),
        (100.0, True, b"00", b"00"),
        (0.0, True, b"03", b"01"),
    ):
        field = b"traceparent: %b%b\r\n" % (PARENT[:-2], flags)
        forwarder, head = forwarded(field, is_trusted=is_trusted, sample=sample)
        assert ours(head)[2] == expected
        assert forwarder.is_sampled is (expected == b"01")


def test_share_of_sampled_requests_is_what_was_asked_for() -> None:
    sampled = sum(forwarded(b"", sample=25.0)[0].is_sampled for _ in range(2_000))
    assert 350 < sampled < 650  # 500 ± 19: 7 deviations


def test_other_names_are_no_trace_context() -> None:
    _, head = forwarded(b"trace-parent: %b\r\ntrace_state: a=1\r\n" % PARENT)
    assert OURS.findall(head)[0][0] != TRACE
    assert b"trace-parent: " + PARENT in head


def test_other_attempt_is_another_span_of_the_same_trace() -> None:
    forwarder, head = forwarded(b"traceparent: %b\r\nX-Same: %b\r\n" % (PARENT, SPAN))
    again = forwarder.renewed(head)
    assert ours(again)[0] == ours(head)[0]
    assert ours(again)[1] != ours(head)[1]
    assert OURS.sub(b"", again) == OURS.sub(b"", head)


def test_request_without_an_id_is_called_like_its_trace() -> None:
    forwarder, head = forwarded(b"")
    assert b"X-Request-ID: %b\r\n" % forwarder.trace_id in head
    forwarder, head = forwarded(b"traceparent: %b\r\n" % PARENT)
    assert forwarder.request_id != TRACE
    assert b"X-Request-ID: %b\r\n" % forwarder.request_id in head


@given(
    st.lists(
        st.sampled_from([b"0", b"1", b"a", b"f", b"F", b"-", b"00", b"ff", TRACE, SPAN, b"\n", b" "]),
        max_size=9,
    ),
    st.integers(0, 60),
    st.sampled_from([b"0", b"-", b"A", b"g", b"\xff"]),
)
def test_quick_look_says_what_the_rule_says(pieces: list[bytes], at: int, other: bytes) -> None:
    for value in (b"-".join(pieces), PARENT[:at] + other + PARENT[at + 1 :], PARENT[:at] + PARENT[at + 1 :]):
        rule = re.fullmatch(rb"(00)-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", value)
        if rule is not None and rule[2].strip(b"0") and rule[3].strip(b"0"):
            assert parsed_parent(value) == (rule[2], rule[3], bool(int(rule[4], 16) & 1))
        elif value.startswith((b"00", b"ff")):
            assert parsed_parent(value) is None
