"""Up the link: what is recorded of sampled requests. Wall times are seconds since the epoch."""

import msgspec


class TrySpan(msgspec.Struct, frozen=True, array_like=True):
    """One attempt."""

    span_id: str
    endpoint: str
    version: str
    """Empty at a fallback elsewhere."""
    began: float
    ended: float
    outcome: str
    """As in `gateway_attempts_total`."""
    status: int = 0
    """Of its answer; 0: there was none, or it was not passed on."""


class RequestSpan(msgspec.Struct, frozen=True, array_like=True):
    """One sampled request."""

    trace_id: str
    span_id: str
    parent_id: str
    """The client's span; empty: the trace begins here."""
    began: float
    ended: float
    method: str
    host: str
    path: str
    """As the access log has it, without its query."""
    status: int
    service: str
    version_id: str
    version: str
    deployment: str
    client: str
    request_id: str
    answered_us: int
    flags: list[str]
    tries: list[TrySpan]


class SampledAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What an exemplar is made of: a sampled request where no collector takes spans."""

    version_id: str
    trace_id: str
    answered_us: int
    ended: float


class Spans(msgspec.Struct, frozen=True, tag="spans", tag_field="t"):
    """What was sampled since the last report."""

    requests: list[RequestSpan]
    answers: list[SampledAnswer] = []
    """Of those that are no spans, at least one for each place of a version's histogram."""
