"""Spans on their way to a collector: they arrive, and a collector in trouble costs spans and nothing else."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace as Fake
from typing import Any, Final

import pytest

from bench.procs import free_port
from gateway.control import spans as module
from gateway.control.spans import BATCH, SpanExporter
from gateway.core.settings.observing import OtelSettings
from gateway.link.spans import RequestSpan, SampledAnswer, Spans, TrySpan

messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
CLIENT: Final = "b7ad6b7169203331"


def sampled(number: int = 1, **changed: Any) -> RequestSpan:
    tries = [
        TrySpan("0000000000000002", "http://a", "v1.1", 1000.0, 1000.25, "reset"),
        TrySpan("0000000000000003", "http://b", "v1.0", 1000.25, 1000.5, "answered", 200),
    ]
    values: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_id": CLIENT,
        "began": 1000.0,
        "ended": 1000.5,
        "method": "GET",
        "host": "h",
        "path": "/a",
        "status": 200,
        "service": "auth",
        "version_id": "id-1",
        "version": "v1.0",
        "deployment": "d1",
        "client": "192.0.2.1",
        "request_id": "r1",
        "answered_us": 500_000,
        "flags": ["reset", "retried"],
        "tries": tries,
    }
    return RequestSpan(**(values | changed))


class Collector:
    """An OTLP receiver that answers as it is told to."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self.heads.append(head)
            self.bodies.append(await reader.readexactly(length))
            if self.answer:
                writer.write(self.answer)
            else:
                await reader.read()  # never an answer
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Collector"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


def settings(port: int, **more: Any) -> OtelSettings:
    return OtelSettings(endpoint=f"http://127.0.0.1:{port}/v1/traces", headers={"X-Key": "k"}, **more)


@asynccontextmanager
async def exporter(otel: OtelSettings | None) -> AsyncIterator[SpanExporter]:
    made = SpanExporter(
        otel,
        judged=lambda service: Fake(verdict="hold", gate="requests") if service == "auth" else None,  # type: ignore[arg-type]
        known=lambda: ["id-1"],
        release="1.2.3",
    )
    running = asyncio.ensure_future(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    monkeypatch.setattr(module, "AGAIN_S", 0.001)


async def test_collector_gets_a_request_and_its_attempts() -> None:
    async with Collector().running() as collector, exporter(settings(collector.port)) as spans:
        spans.take(Spans([sampled()]))
        await until(lambda: spans.counts["sent"] == 1)
    assert b"POST /v1/traces HTTP/1.1" in collector.heads[0]
    assert b"X-Key: k" in collector.heads[0]
    assert b"application/x-protobuf" in collector.heads[0]
    request = messages.ExportTraceServiceRequest.FromString(collector.bodies[0])
    (resource,) = request.resource_spans
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
        "service.name": "gateway",
        "service.version": "1.2.3",
    }
    served, first, second = resource.scope_spans[0].spans
    assert served.trace_id == first.trace_id == bytes.fromhex(TRACE)
    assert served.parent_span_id == bytes.fromhex(CLIENT)
    assert first.parent_span_id == second.parent_span_id == served.span_id
    assert (served.kind, first.kind) == (2, 3)
    assert served.end_time_unix_nano - served.start_time_unix_nano == 500_000_000
    assert (served.status.code, first.status.code, second.status.code) == (0, 2, 0)
    said = {each.key: each.value for each in served.attributes}
    assert said["gateway.verdict"].string_value == "hold"
    assert said["gateway.deployment"].string_value == "d1"
    assert said["gateway.retries"].int_value == 1
    assert [each.string_value for each in said["gateway.flags"].array_value.values] == ["reset", "retried"]


def relay_program() -> Path | None:
    """Return where the collector `rotel` lies, if it is installed (`pip install --pre rotel`)."""
    spec = find_spec("rotel")
    return Path(spec.origin).with_name("rotel-agent") if spec is not None and spec.origin else None


@asynccontextmanager
async def relay(program: Path, folder: Path, to: int) -> AsyncIterator[int]:
    """A collector that is not ours, which sends on what it has understood. Yields its port."""
    port = free_port()
    options = {
        "otlp-http-endpoint": f"127.0.0.1:{port}",
        "otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
        "exporter": "otlp",
        "otlp-exporter-endpoint": f"http://127.0.0.1:{to}",
        "otlp-exporter-protocol": "http",
        "batch-timeout": "10ms",
        "pid-file": str(folder / "pid"),
        "log-file": str(folder / "log"),
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(
        program, "start", *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until_listening(port)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_listening(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def test_collector_that_is_not_ours_understands_every_span(tmp_path: Path) -> None:
    """A recorder takes any bytes; this one reads them, and writes what it has read."""
    program = relay_program()
    if program is None:
        pytest.skip("rotel is not installed: pip install --pre rotel")
    sent = [sampled(), sampled(2, parent_id="", status=499, service="", tries=[], flags=[]), sampled(3)]
    async with (
        Collector().running() as recorder,
        relay(program, tmp_path, recorder.port) as port,
        exporter(settings(port)) as spans,
    ):
        spans.take(Spans(sent))
        await until(lambda: spans.counts["sent"] == len(sent))
        await until(lambda: len(spans_in(recorder.bodies)) == 7)
    async with Collector().running() as direct, exporter(settings(direct.port)) as spans:
        spans.take(Spans(sent))
        await until(lambda: spans.counts["sent"] == len(sent))
    assert spans_in(recorder.bodies) == spans_in(direct.bodies)


def spans_in(bodies: list[bytes]) -> list[Any]:
    plain = [gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body for body in bodies]
    requests = [messages.ExportTraceServiceRequest.FromString(body) for body in plain]
    scopes = [scope for one in requests for resource in one.resource_spans for scope in resource.scope_spans]
    return [span for scope in scopes for span in scope.spans]


async def test_request_without_answer_service_or_parent_is_a_span_too() -> None:
    span = sampled(parent_id="", status=499, service="", version="", version_id="", tries=[], flags=[])
    async with Collector().running() as collector, exporter(settings(collector.port)) as spans:
        spans.take(Spans([span, sampled(status=0)]))
        await until(lambda: spans.counts["sent"] == 2)
    request = messages.ExportTraceServiceRequest.FromString(collector.bodies[0])
    served = request.resource_spans[0].scope_spans[0].spans
    assert served[0].parent_span_id == b""
    assert served[1].status.code == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"",
    ],
    ids=["500", "404", "redirects", "nonsense", "breaks off", "never answers"],
)
async def test_collector_in_trouble_costs_its_batch_after_a_second_try_and_no_more(answer: bytes) -> None:
    async with (
        Collector(answer).running() as collector,
        exporter(settings(collector.port, timeout=200)) as spans,
    ):
        spans.take(Spans([sampled()]))
        await until(lambda: spans.counts["failed"] == 1)
        assert len(collector.bodies) == 2
        collector.answer = Collector().answer
        spans.take(Spans([sampled()]))
        await until(lambda: spans.counts["sent"] == 1)
    assert spans.counts == {"sent": 1, "failed": 1, "dropped": 0}


async def test_nobody_listens_there() -> None:
    async with exporter(settings(1)) as spans:
        spans.take(Spans([sampled()]))
        await until(lambda: spans.counts["failed"] == 1)


async def test_answer_without_end_is_read_only_so_far() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1_000_000
    async with (
        Collector(endless).running() as collector,
        exporter(settings(collector.port, timeout=2_000)) as spans,
    ):
        spans.take(Spans([sampled()]))
        await until(lambda: spans.counts["sent"] + spans.counts["failed"] == 1)


async def test_queue_is_bounded_and_what_has_no_room_is_counted() -> None:
    async with Collector(b"").running() as collector:
        made = SpanExporter(
            settings(collector.port, queue=10), judged=lambda _: None, known=list, release="1"
        )
        made.take(Spans([sampled(number) for number in range(1, 26)]))
        assert made.counts["dropped"] == 15
        made.configure(None)
        assert made.counts["dropped"] == 25


async def test_many_requests_go_in_several_batches() -> None:
    async with Collector().running() as collector, exporter(settings(collector.port)) as spans:
        spans.take(Spans([sampled(number) for number in range(1, BATCH * 2 + 2)]))
        await until(lambda: spans.counts["sent"] == BATCH * 2 + 1)
    assert len(collector.bodies) == 3


async def test_end_sends_what_waits_and_does_not_wait_for_a_collector_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    for answer, counts in (
        (Collector().answer, {"sent": 1, "failed": 0, "dropped": 0}),
        (b"", {"sent": 0, "failed": 1, "dropped": 0}),
    ):
        async with Collector(answer).running() as collector:
            made = SpanExporter(settings(collector.port), judged=lambda _: None, known=list, release="1")
            made.take(Spans([sampled()]))
            await made.close()
        assert made.counts == counts


def test_newest_sampled_request_of_each_bucket_is_its_exemplar() -> None:
    made = SpanExporter(None, judged=lambda _: None, known=lambda: ["id-1"], release="1")
    made.take(Spans([sampled(answered_us=900), sampled(answered_us=400, trace_id="1" * 32)]))
    made.take(Spans([sampled(answered_us=2_000_000, trace_id="2" * 32), sampled(answered_us=0)]))
    assert {place: each.trace_id for place, each in made.exemplars("id-1").items()} == {
        0: "1" * 32,
        10: "2" * 32,
    }
    made.take(Spans([], [SampledAnswer("id-1", "3" * 32, 3_000, 1000.5)]))
    assert made.exemplars("id-1")[2].trace_id == "3" * 32
    made.take(Spans([sampled(version_id="made-up")], [SampledAnswer("made-up", "4" * 32, 9, 1000.5)]))
    assert made.exemplars("made-up") == {}
    assert made.counts == {"sent": 0, "failed": 0, "dropped": 0}
