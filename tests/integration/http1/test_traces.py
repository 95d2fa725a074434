"""A request's ids on their way: to the upstream, into the log, to the client, and as spans."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.core.routing.service import RouteSettings
from gateway.core.settings.observing import LogFilter
from gateway.link.snapshot import ProxySettings
from gateway.link.spans import RequestSpan
from tests.integration.http1.proxying import GET, Proxy, Upstream, eventually, proxying, service, version

TRACE: Final = b"0af7651916cd43dd8448eb211c80319c"
SPAN: Final = b"b7ad6b7169203331"
FIELD: Final = b"traceparent: 00-%b-%b-01\r\n" % (TRACE, SPAN)
OURS: Final = re.compile(rb"\r\ntraceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])\r\n")
BUSY: Final = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
ALL: Final = ProxySettings(trace_sample=100.0, trace_export=True)


def asked(fields: bytes = b"", path: bytes = b"/a") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (path, fields)


def span_of(proxy: Proxy) -> RequestSpan:
    (span,) = proxy.plane.context.spans.take()
    return span


async def test_request_without_a_trace_is_sent_on_with_one_and_nothing_is_recorded() -> None:
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        await proxy.ask(GET)
        await proxy.ask(asked(FIELD))
        assert proxy.plane.context.spans.take() == []
    first, second = (OURS.findall(head) for head in upstream.seen)
    assert first[0][2] == second[0][2] == b"00"
    assert second[0][0] == TRACE
    assert second[0][1] != SPAN


async def test_sampled_request_is_a_span_with_its_attempt() -> None:
    upstream = Upstream()
    async with proxying(upstream, proxy=ALL) as proxy:
        await proxy.ask(asked(FIELD + b"X-Request-ID: r-1\r\n", b"/a?secret=1"))
        span = span_of(proxy)
    ((trace, parent, flags),) = OURS.findall(upstream.seen[0])
    assert flags == b"01"
    assert span.trace_id.encode() == trace == TRACE
    assert span.parent_id.encode() == SPAN
    (attempt,) = span.tries
    assert attempt.span_id.encode() == parent
    assert attempt.span_id != span.span_id
    assert (span.service, span.version, span.version_id, span.status) == ("s", "v1", "v1", 200)
    assert (span.path, span.request_id, attempt.outcome, attempt.status) == ("/a", "r-1", "answered", 200)
    assert span.began <= attempt.began <= attempt.ended <= span.ended
    assert span.answered_us > 0


async def test_each_attempt_is_a_span_of_its_own_and_the_upstreams_parent() -> None:
    one, two = Upstream(), Upstream()
    one.answer = two.answer = BUSY
    async with proxying(one, two, proxy=ALL) as proxy:
        await proxy.ask(GET)
        span = span_of(proxy)
    parents = {OURS.findall(head)[0][1].decode() for head in (*one.seen, *two.seen)}
    assert len(span.tries) == len(one.seen) + len(two.seen) >= 2
    assert parents == {attempt.span_id for attempt in span.tries}
    assert "retried" in span.flags
    assert "503" in span.flags


async def test_request_after_a_sampled_one_is_recorded_only_if_it_is_sampled_too() -> None:
    trusting = ProxySettings(trusted_proxies=(("127.0.0.0/8",),), trace_export=True)
    async with proxying(Upstream(), proxy=trusting) as proxy:
        peer = await proxy.client()
        for flags in (b"01", b"00", b"01"):
            peer.send(asked(b"traceparent: 00-%b-%b-%b\r\n" % (TRACE, SPAN, flags)))
            await peer.answer()
        assert len(proxy.plane.context.spans.take()) == 2


async def test_sampled_requests_without_a_collector_are_exemplars_and_no_spans() -> None:
    """A span costs as much as a third of a request, and a trusted proxy may sample all."""
    upstream = Upstream()
    async with proxying(upstream, proxy=ProxySettings(trace_sample=100.0)) as proxy:
        spans, client = proxy.plane.context.spans, await proxy.client()
        client.send(asked(FIELD))
        await client.answer()
        assert spans.take() == []
        (answer,) = spans.take_answers()
        proxy.apply(service(version("v1", upstream), routes=(RouteSettings(path="/b"),)))
        client.send(asked())
        assert (await client.answer()).startswith(b"HTTP/1.1 404 ")
        assert spans.take_answers() == []
    assert (answer.version_id, answer.trace_id) == ("v1", TRACE.decode())
    assert answer.answered_us > 0
    assert OURS.findall(upstream.seen[0])[0][2] == b"01"


async def test_spans_that_nobody_takes_are_bounded_and_counted() -> None:
    async with proxying(Upstream(), proxy=ALL) as proxy:
        spans = proxy.plane.context.spans
        await proxy.ask(GET)
        (span,) = spans.take()
        for _ in range(1_005):
            spans.add(span)
        assert spans.dropped == 5
        assert len(spans.take()) == 1_000


async def test_client_is_told_the_id_and_the_times_only_if_the_settings_say_so() -> None:
    upstream = Upstream()
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nX-Request-ID: theirs\r\nServer-Timing: db;dur=1\r\nContent-Length: 2\r\n\r\nok"
    )
    async with proxying(upstream) as proxy:
        plain = await proxy.ask(asked(b"X-Request-ID: mine\r\n"))
        assert b"X-Request-ID: theirs\r\n" in plain
        assert b"gateway;dur" not in plain
    told = ProxySettings(trace_expose=("request_id", "server_timing"))
    async with proxying(upstream, proxy=told) as proxy:
        answer = await proxy.ask(asked(b"X-Request-ID: mine\r\n"))
        assert answer.lower().count(b"x-request-id:") == 1
        assert b"\r\nX-Request-ID: mine\r\n" in answer
        assert b"\r\nServer-Timing: db;dur=1\r\n" in answer
        assert re.search(rb"\r\nServer-Timing: upstream;dur=[0-9.]+, gateway;dur=[0-9.]+\r\n", answer)
        await upstream.stop()
        refused = await proxy.ask(asked(b"X-Request-ID: mine\r\n"))
        assert b"\r\nX-Request-ID: mine\r\n" in refused
        proxy.apply(service(version("v1", upstream), routes=()))
        nowhere = await proxy.ask(asked())
        assert b" 404 " in nowhere
        assert re.search(rb"\r\nX-Request-ID: [0-9a-f]{32}\r\n", nowhere)


async def logged(
    tmp_path: Path, *requests: bytes, upstream: Upstream | None = None, **more: Any
) -> list[Any]:
    """Return the lines that requests leave, in their order."""
    path = tmp_path / "log"
    settings = ProxySettings(access_log_format="json", access_log_path=str(path), **more)
    async with proxying(upstream or Upstream(), proxy=settings) as proxy:
        for each in requests:
            await proxy.ask(each)
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_line_has_the_ids_the_upstream_got_and_where_the_time_went(tmp_path: Path) -> None:
    upstream = Upstream()
    post = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    chunked = (
        b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    first, second, third = await logged(tmp_path, asked(FIELD), post, chunked, upstream=upstream)
    assert first["trace_id"].encode() == TRACE
    assert first["request_id"].encode() in upstream.seen[0]
    assert first["request_id"] != first["trace_id"]
    assert second["trace_id"].encode() == OURS.findall(upstream.seen[1])[0][0]
    assert [each["bytes_in"] for each in (first, second, third)] == [0, 3, 5]
    for line in (first, second, third):
        assert line["bytes_out"] == 2
        assert 0 < line["upstream_ms"] <= line["duration_ms"]
        assert line["gateway_ms"] >= 0
        assert line["attempts"] == 1
        assert "flags" not in line
        assert "deployment" not in line


async def test_line_of_a_request_that_was_routed_nowhere_has_ids_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = ProxySettings(access_log_format="json", access_log_path=str(path))
    async with proxying(Upstream(), proxy=settings) as proxy:
        proxy.apply()
        peer = await proxy.client()
        for _ in range(2):
            peer.send(asked(b"X-Request-ID: \x7f\r\n".replace(b"\x7f", b"a b")))
            await peer.answer()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["flags"] for line in lines] == [["no_route"], ["no_route"]]
    assert len({line["request_id"] for line in lines} | {line["trace_id"] for line in lines}) == 2
    assert [line["attempts"] for line in lines] == [0, 0]


async def test_filter_and_query_setting_reach_the_log(tmp_path: Path) -> None:
    upstream = Upstream()
    upstream.answer = BUSY
    only = LogFilter(status="500-599")
    settings: dict[str, Any] = {"access_log_only": only, "access_log_query": "redact"}
    lines = await logged(tmp_path, asked(path=b"/x?token=s3cret"), upstream=upstream, **settings)
    assert [line["path"] for line in lines] == ["/x?token=***"]
    assert lines[0]["attempts"] == 3
    assert lines[0]["flags"] == ["503", "retried"]
    (tmp_path / "log").unlink()
    assert await logged(tmp_path, asked(), **settings) == []


async def test_client_that_leaves_is_499_with_the_time_it_waited(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = ProxySettings(access_log_format="json", access_log_path=str(path))

    async def never(peer: Any) -> None:
        await peer.head()
        await peer.rest()

    async with proxying(Upstream(never), proxy=settings) as proxy:
        peer = await proxy.client()
        peer.send(GET)
        counts = proxy.plane.live_table.counts["v1"]
        await eventually(lambda: counts.in_flight == 1)
        peer.reset()
        await eventually(lambda: path.exists() and path.read_bytes().count(b"\n") == 1)
        assert counts.abandoned == 1
    line = json.loads(path.read_text())
    assert (line["status"], line["flags"]) == (499, ["client_gone"])
    assert line["upstream_ms"] > 0


@pytest.mark.parametrize("status", [200, 503])
async def test_retries_are_counted_by_what_became_of_them(status: int) -> None:
    one, two = Upstream(), Upstream()
    one.answer = BUSY
    two.answer = BUSY if status == 503 else two.answer
    async with proxying(one, two) as proxy:
        for _ in range(6):
            await proxy.ask(GET)
        counts = proxy.counts("v1")
        tried = sum(counts.attempts.values())
        assert sum(n for outcome, n in counts.retries.items() if outcome != "no_budget") == tried - 6
        assert sum(counts.seconds) == sum(counts.upstream) == sum(counts.own) == 6
