"""Sampled requests, as the workers hand them on: exemplars for metrics, and spans for a collector.

Everything here is bounded, and a collector that is slow, broken or gone costs spans, which are counted, and
nothing else.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from gateway.control.otlp import CONTENT_TYPE, Sampled, encoded
from gateway.core.judge.buckets import bucket_of
from gateway.core.judge.decision import Decision
from gateway.core.settings.observing import OtelSettings
from gateway.errors import GatewayError
from gateway.http1.fetch import FetchResult, fetch
from gateway.link.counts import place_of
from gateway.link.spans import RequestSpan, SampledAnswer, Spans
from gateway.log import get_logger

log = get_logger(component="spans")

BATCH: Final = 512
"""Requests in one export."""
GATHER_S: Final = 1.0
"""How long a batch that is not full waits for more."""
AGAIN_S: Final = 1.0
"""Before a batch is sent a second time, which is the last."""
CLOSE_S: Final = 1.0
"""What the end waits for the collector."""
COMPLAIN_S: Final = 60.0
"""A collector that fails is complained of this often."""
MAX_ANSWER_BYTES: Final = 4_096


class Exemplar(NamedTuple):
    """A request that stands for those of its bucket. at: seconds since the epoch."""

    trace_id: str
    seconds: float
    at: float


class SpanExporter:
    """Takes what was sampled, and sends it where the settings say."""

    def __init__(
        self,
        otel: OtelSettings | None,
        *,
        judged: Callable[[str], Decision | None],
        known: Callable[[], Iterable[str]],
        release: str,
        send: Callable[..., Awaitable[FetchResult]] = fetch,
    ) -> None:
        """judged: the judge's last word on a service's open rollout. known: ids of versions there are."""
        self.counts = {"sent": 0, "failed": 0, "dropped": 0}
        """Requests, by what became of their spans."""
        self._otel = otel
        self._judged = judged
        self._known = known
        self._release = release
        self._send = send
        self._waiting: deque[Sampled] = deque()
        self._news = asyncio.Event()
        self._exemplars: dict[str, dict[int, Exemplar]] = {}
        self._complain_at = 0.0

    def configure(self, otel: OtelSettings | None) -> None:
        """Send to another collector from now on, or to none."""
        self._otel = otel
        if otel is None:
            self.counts["dropped"] += len(self._waiting)
            self._waiting.clear()

    def exemplars(self, version_id: str) -> dict[int, Exemplar]:
        """Return the newest sampled request of each place of a version's histogram."""
        return self._exemplars.get(version_id, {})

    def take(self, spans: Spans) -> None:
        """Take what a worker has sampled."""
        for answer in spans.answers:
            self._exemplify(answer)
        for span in spans.requests:
            self._exemplify(span)
            if self._otel is None:
                continue
            if len(self._waiting) >= self._otel.queue:
                self.counts["dropped"] += 1
                continue
            judged = self._judged(span.service)
            self._waiting.append(
                Sampled(span, judged.verdict, judged.gate) if judged is not None else Sampled(span)
            )
            self._news.set()

    def _exemplify(self, span: RequestSpan | SampledAnswer) -> None:
        if not span.version_id or not span.answered_us:
            return
        if span.version_id not in self._exemplars:
            known = set(self._known())
            self._exemplars = {each: found for each, found in self._exemplars.items() if each in known}
            if span.version_id not in known:
                return
            self._exemplars[span.version_id] = {}
        place = place_of(span.answered_us, bucket_of(span.answered_us))
        found = Exemplar(span.trace_id, span.answered_us / 1e6, span.ended)
        self._exemplars[span.version_id][place] = found

    async def run(self) -> None:
        """Send batches until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                if len(self._waiting) < BATCH:
                    await asyncio.sleep(GATHER_S)
                try:
                    await self._send_batch(again_s=AGAIN_S)
                except Exception as exc:
                    log.error("spans_broke", error=repr(exc))

    async def close(self) -> None:
        """Send one more batch, if the collector takes it soon; drop what else waits."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                if self._waiting:
                    await self._send_batch(again_s=0.0)
        self.counts["dropped"] += len(self._waiting)
        self._waiting.clear()

    async def _send_batch(self, *, again_s: float) -> None:
        otel, batch = self._otel, list(islice(self._waiting, BATCH))
        if otel is None or not batch:
            return
        for _ in batch:
            self._waiting.popleft()
        result = "failed"
        try:
            result = await self._sent(otel, encoded(batch, self._release), again_s)
        finally:  # a cancellation, too, costs the batch
            self.counts[result] += len(batch)

    async def _sent(self, otel: OtelSettings, body: bytes, again_s: float) -> str:
        """Send, twice if need be. Returns `sent` or `failed`."""
        error = await self._try(otel, body)
        if error and again_s:
            await asyncio.sleep(again_s)
            error = await self._try(otel, body)
        if not error:
            return "sent"
        now = asyncio.get_running_loop().time()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAIN_S
            log.warning("spans_not_taken", endpoint=otel.endpoint, error=error)
        return "failed"

    async def _try(self, otel: OtelSettings, body: bytes) -> str:
        """Send a batch once. Returns why it was not taken; empty if it was. Redirects are not followed."""
        fields = [*otel.headers.items(), ("Content-Type", CONTENT_TYPE)]
        try:
            answer = await self._send(
                otel.endpoint,
                method="POST",
                fields=fields,
                body=body,
                timeout_s=otel.timeout / 1000,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except GatewayError as exc:
            return str(exc)
        return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"
