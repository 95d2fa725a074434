"""Sampled requests, until the next report takes them to control: as spans, or as exemplars alone."""

import time
from typing import Final

from gateway.core.judge.buckets import bucket_of
from gateway.link.counts import place_of
from gateway.link.spans import RequestSpan, SampledAnswer

MAX_SPANS: Final = 1_000
"""Requests between two reports, and while no control listens; more are dropped."""


class SpanBuffer:
    """What is recorded and not handed on yet."""

    def __init__(self) -> None:
        self.is_exported = False
        """Whether a collector takes spans; none are made otherwise. Settable."""
        self.dropped = 0
        """Since the start."""
        self._spans: list[RequestSpan] = []
        self._answers: dict[tuple[str, int], SampledAnswer] = {}
        """By version and place in its histogram: the first since the last report."""

    def add(self, span: RequestSpan) -> None:
        """Keep a request, as far as there is room."""
        if len(self._spans) < MAX_SPANS:
            self._spans.append(span)
        else:
            self.dropped += 1

    def exemplify(self, version_id: str, trace_id: bytes, answered_us: int) -> None:
        """Keep an answer that is no span, if it is the first of its place."""
        place = version_id, place_of(answered_us, bucket_of(answered_us))
        if place not in self._answers:
            answer = SampledAnswer(version_id, trace_id.decode("ascii"), answered_us, time.time())
            self._answers[place] = answer

    def take(self) -> list[RequestSpan]:
        """Return the spans that were kept, and keep them no more."""
        spans, self._spans = self._spans, []
        return spans

    def take_answers(self) -> list[SampledAnswer]:
        """Return the answers that were kept, and keep them no more."""
        answers, self._answers = self._answers, {}
        return list(answers.values())
