"""Spans as an OpenTelemetry collector takes them: OTLP over HTTP, in protobuf.

The messages come from the extra `otel`, which is imported when spans are first encoded.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

from gateway.link.spans import RequestSpan, TrySpan

CONTENT_TYPE: Final = "application/x-protobuf"
_MESSAGES: Final = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
_TRACE: Final = "opentelemetry.proto.trace.v1.trace_pb2"


class Sampled(NamedTuple):
    """A request that was recorded, with what was thought of its service's rollout then."""

    span: RequestSpan
    verdict: str = ""
    """The judge's last one; empty: no rollout is open."""
    gate: str = ""
    """What it rested on."""


def encoded(batch: Iterable[Sampled], release: str) -> bytes:
    """Return an export request with the spans of these requests and of their attempts."""
    request = import_module(_MESSAGES).ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _set(resource.resource.attributes, {"service.name": "gateway", "service.version": release})
    scope = resource.scope_spans.add()
    scope.scope.name = "gateway"
    kinds = import_module(_TRACE)
    for sampled in batch:
        _add_request(scope.spans.add(), sampled, kinds)
        for number, each in enumerate(sampled.span.tries, 1):
            _add_try(scope.spans.add(), sampled.span, each, number, kinds)
    encoded_request: bytes = request.SerializeToString()
    return encoded_request


def _add_request(span: Any, sampled: Sampled, kinds: Any) -> None:
    request = sampled.span
    _identify(span, request.trace_id, request.span_id, request.parent_id)
    span.name = f"{request.method} {request.service}".strip()
    span.kind = kinds.Span.SPAN_KIND_SERVER
    _time(span, request.began, request.ended)
    if request.status >= 500 or request.status < 100:
        span.status.code = kinds.Status.STATUS_CODE_ERROR
    values: dict[str, str | int | list[str]] = {
        "http.request.method": request.method,
        "http.response.status_code": request.status,
        "url.path": request.path,
        "server.address": request.host,
        "client.address": request.client,
        "gateway.request_id": request.request_id,
        "gateway.service": request.service,
        "gateway.version": request.version,
        "gateway.deployment": request.deployment,
        "gateway.verdict": sampled.verdict,
        "gateway.verdict.gate": sampled.gate,
        "gateway.attempts": len(request.tries),
        "gateway.retries": max(len(request.tries) - 1, 0),
        "gateway.flags": request.flags,
    }
    _set(span.attributes, {name: value for name, value in values.items() if value not in ("", [])})


def _add_try(span: Any, request: RequestSpan, attempt: TrySpan, number: int, kinds: Any) -> None:
    _identify(span, request.trace_id, attempt.span_id, request.span_id)
    span.name = "attempt"
    span.kind = kinds.Span.SPAN_KIND_CLIENT
    _time(span, attempt.began, attempt.ended)
    if attempt.outcome != "answered" or attempt.status >= 500:
        span.status.code = kinds.Status.STATUS_CODE_ERROR
    values: dict[str, str | int | list[str]] = {
        "server.address": attempt.endpoint,
        "gateway.service": request.service,
        "gateway.version": attempt.version,
        "gateway.attempt": number,
        "gateway.outcome": attempt.outcome,
    }
    if attempt.status:
        values["http.response.status_code"] = attempt.status
    _set(span.attributes, values)


def _identify(span: Any, trace_id: str, span_id: str, parent_id: str) -> None:
    span.trace_id = bytes.fromhex(trace_id)
    span.span_id = bytes.fromhex(span_id)
    span.parent_span_id = bytes.fromhex(parent_id)


def _time(span: Any, began: float, ended: float) -> None:
    span.start_time_unix_nano = int(began * 1e9)
    span.end_time_unix_nano = int(max(began, ended) * 1e9)


def _set(attributes: Any, values: Mapping[str, str | int | list[str]]) -> None:
    for name, value in values.items():
        added = attributes.add()
        added.key = name
        if isinstance(value, str):
            added.value.string_value = value
        elif isinstance(value, int):
            added.value.int_value = value
        else:
            for each in value:
                added.value.array_value.values.add().string_value = each
