"""Spans of sampled requests, until the next report takes them to control."""

from typing import Final

from gateway.link.spans import RequestSpan

MAX_SPANS: Final = 1_000
"""Requests between two reports, and while no control listens; more are dropped."""


class SpanBuffer:
    """What is recorded and not handed on yet."""

    def __init__(self) -> None:
        self.dropped = 0
        """Since the start."""
        self._spans: list[RequestSpan] = []

    def add(self, span: RequestSpan) -> None:
        """Keep a request, as far as there is room."""
        if len(self._spans) < MAX_SPANS:
            self._spans.append(span)
        else:
            self.dropped += 1

    def take(self) -> list[RequestSpan]:
        """Return what was kept, and keep it no more."""
        spans, self._spans = self._spans, []
        return spans
