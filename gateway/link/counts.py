"""Up the link: plain integers, as totals since the worker's start.

The exchange calls `VersionCounts` on the hot path; every 100 ms the worker sends what changed. Control takes
differences per (worker incarnation), so a repeated report counts nothing twice and a lost one loses nothing.
"""

from typing import Final

from gateway.core.judge.buckets import BUCKETS, bucket_of, bucket_upper_us
from gateway.core.judge.route_class import MAX_CLASSES, OTHER
from gateway.core.routing.version import AttemptCounts
from gateway.link.totals import JudgedTotals, VersionTotals

ANSWERED: Final = "answered"
"""What became of an attempt that got a response head, 5xx included; else it is `connect`, `reset`, `timeout`,
`bad_response`, `client_gone` or `refused`."""
MAX_COHORT_ERRORS: Final = 1_000
"""Errors of users kept for one report."""


EDGES_US: Final = (
    *(1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000),
    *(1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000),
)
"""Upper bounds, inclusive, of the histograms that are shown; what is slower has a place behind the last."""
PLACES: Final = len(EDGES_US) + 1
_FIRST_EDGE_US: Final = EDGES_US[0]
_NEVER: Final = 1 << 62
_BOUNDS: Final = [*EDGES_US, _NEVER]
_FIRST: Final = [
    sum(edge < lower for edge in EDGES_US) for lower in (0, *map(bucket_upper_us, range(BUCKETS - 1)))
]
"""Of each of the judge's buckets: the first place that something in it may belong to; else it is the next."""


def place_of(us: int, bucket: int) -> int:
    """Return the place among EDGES_US of `us` microseconds. bucket: `bucket_of` it."""
    place = _FIRST[bucket]
    return place if us <= _BOUNDS[place] else place + 1


class JudgedCounts:
    """First attempts that the split chose, of one version at one (generation, share): evidence."""

    __slots__ = ("_totals", "answers", "errors", "latency")

    def __init__(self) -> None:
        self.answers = 0
        """Attempts that ended with an answer or an error; a client that went away never counts. It rises with
        whatever is counted here."""
        self.errors: dict[str, int] = {}
        """By kind: `connect`, `reset`, `timeout`, or the status (`502`, `404`) of an answer >= 400."""
        self.latency: dict[int, int] = {}
        """By bucket."""
        self._totals: JudgedTotals | None = None
        """What was sent last."""

    def totals(self, generation: int, share: int) -> JudgedTotals:
        """Return what is held now, to send: made anew only if something came, for most are of weights gone
        by.
        """
        totals = self._totals
        if totals is None or totals.answers != self.answers:
            errors, latency = dict(self.errors), dict(self.latency)
            totals = self._totals = JudgedTotals(generation, share, self.answers, errors, latency)
        return totals


class _Plain:
    """Plain answers alike in all that is counted by: see `VersionCounts.answer`."""

    __slots__ = ("answers", "buckets", "generation", "latency_us", "method", "share", "status")

    def __init__(self, method: str, status: int, generation: int, share: int) -> None:
        self.method = method
        self.status = status
        self.generation = generation
        self.share = share
        self.answers = 0
        self.latency_us = 0
        self.buckets: dict[int, int] = {}


class VersionCounts(AttemptCounts):
    """Everything counted about one version in one worker. Outlives table swaps."""

    __slots__ = (
        "_last",
        "_plain",
        "attempts",
        "cohort_errors",
        "dirty",
        "judged",
        "latency",
        "latency_us",
        "own",
        "own_us",
        "requests",
        "retries",
        "routes",
        "seconds",
        "service",
        "upstream",
        "upstream_us",
        "version",
        "version_id",
    )

    def __init__(self, service: str, version: str, version_id: str) -> None:
        super().__init__()
        self.service = service
        self.version = version
        self.version_id = version_id
        self.requests: dict[tuple[str, int], int] = {}
        """(method, status) -> exchanges this version answered."""
        self.attempts: dict[str, int] = {}
        """Outcome -> attempts made at this version."""
        self.latency: list[int] = [0] * BUCKETS
        self.latency_us = 0
        self.seconds: list[int] = [0] * PLACES
        """Exchanges this version answered, by how long their clients waited for the head; and how much of it
        was spent waiting for upstreams, how much here."""
        self.upstream: list[int] = [0] * PLACES
        self.upstream_us = 0
        self.own: list[int] = [0] * PLACES
        self.own_us = 0
        self.retries: dict[str, int] = {}
        """Outcome -> attempts that were not a request's first; `no_budget`: those not made."""
        self.judged: dict[tuple[int, int], JudgedCounts] = {}
        """(generation, share in hundredths of a percent) -> evidence."""
        self.cohort_errors: list[tuple[int, int, int, str]] = []
        """Sticky services: (generation, share, 64-bit key hash, kind) of errors not yet sent; bounded."""
        self.routes: set[str] = set()
        """Route classes that errors were met in; bounded."""
        self.dirty = True
        self._plain: dict[tuple[str, int, int, int], _Plain] = {}
        """Answers not yet added to the above."""
        self._last = _Plain("", 0, 0, 0)

    def request(self, method: str, status: int, latency_us: int, upstream_us: int) -> None:
        """Count an exchange this version answered: how long its client waited for the head, and how much of
        that upstreams were waited for.
        """
        key = (method, status)
        requests = self.requests
        requests[key] = requests.get(key, 0) + 1
        bucket = bucket_of(latency_us)
        self.latency[bucket] += 1
        self.latency_us += latency_us
        self._time(latency_us, upstream_us, bucket)
        self.dirty = True

    def _time(self, latency_us: int, upstream_us: int, bucket: int) -> None:
        """Count how long an answer took. bucket: of `latency_us`."""
        place = place_of(latency_us, bucket)
        self.seconds[place] = self.seconds[place] + 1  # compiled, a list's `+= 1` costs three times as much
        if place and upstream_us <= EDGES_US[place - 1]:
            place = place_of(upstream_us, bucket_of(upstream_us))
        self.upstream[place] = self.upstream[place] + 1
        self.upstream_us += upstream_us
        own_us = latency_us - upstream_us
        place = 0 if own_us <= _FIRST_EDGE_US else place_of(own_us, bucket_of(own_us))
        self.own[place] = self.own[place] + 1
        self.own_us += own_us

    def retry(self, outcome: str) -> None:
        """Count an attempt that was not the first, by what became of it, or one that was not made."""
        self.retries[outcome] = self.retries.get(outcome, 0) + 1
        self.dirty = True

    def attempt(self, outcome: str) -> None:
        """Count one try at this version by what became of it."""
        attempts = self.attempts
        attempts[outcome] = attempts.get(outcome, 0) + 1
        self.dirty = True

    def judge(self, generation: int, share: int, error: str | None, latency_us: int) -> None:
        """Count a first attempt that the split sent here.

        generation: the service's when the version was chosen. share: hundredths of a percent of traffic that
        version had in this worker then. error: None for a good answer, else its kind.
        """
        counts = self._judged_of(generation, share)
        counts.answers += 1
        if error is not None:
            counts.errors[error] = counts.errors.get(error, 0) + 1
        bucket = bucket_of(latency_us)
        counts.latency[bucket] = counts.latency.get(bucket, 0) + 1
        self.dirty = True

    def bounded(self, route: str) -> str:
        """Return the route class, or that of all others once there are many."""
        if route not in self.routes:
            if len(self.routes) >= MAX_CLASSES:
                return OTHER
            self.routes.add(route)
        return route

    def cohort_error(self, generation: int, share: int, key_number: int, kind: str) -> None:
        """Count an error of a sticky service's user, as far as there is room."""
        if len(self.cohort_errors) < MAX_COHORT_ERRORS:
            self.cohort_errors.append((generation, share, key_number, kind))

    def answer(
        self, method: str, status: int, latency_us: int, upstream_us: int, generation: int, share: int
    ) -> None:
        """Count what nearly every exchange is: a first attempt, chosen by the split, and well answered.

        The same as `request`, `attempt` and `judge` together, at a fraction of the price; `fold` adds it up.
        """
        plain = self._last
        if (
            plain.status != status
            or plain.share != share
            or plain.generation != generation
            or plain.method != method
        ):
            plain = self._plain_of(method, status, generation, share)
        plain.answers += 1
        plain.latency_us += latency_us
        bucket = bucket_of(latency_us)
        buckets = plain.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self._time(latency_us, upstream_us, bucket)
        self.dirty = True

    def fold(self) -> None:
        """Add what `answer` has counted to everything else."""
        for key, plain in self._plain.items():
            method, status, generation, share = key
            self.requests[method, status] = self.requests.get((method, status), 0) + plain.answers
            self.attempts[ANSWERED] = self.attempts.get(ANSWERED, 0) + plain.answers
            self.latency_us += plain.latency_us
            judged = self._judged_of(generation, share)
            judged.answers += plain.answers
            for bucket, count in plain.buckets.items():
                self.latency[bucket] += count
                judged.latency[bucket] = judged.latency.get(bucket, 0) + count
        self._plain.clear()
        self._last = _Plain("", 0, 0, 0)

    def _plain_of(self, method: str, status: int, generation: int, share: int) -> _Plain:
        key = (method, status, generation, share)
        plain = self._plain.get(key)
        if plain is None:
            plain = self._plain[key] = _Plain(method, status, generation, share)
        self._last = plain
        return plain

    def _judged_of(self, generation: int, share: int) -> JudgedCounts:
        counts = self.judged.get((generation, share))
        if counts is None:
            counts = self.judged[(generation, share)] = JudgedCounts()
            if len(self.judged) > 64:
                del self.judged[next(iter(self.judged))]
        return counts


def totals_of(counts: VersionCounts) -> VersionTotals:
    """Return what `counts` holds now, to send; forgets nothing but the cohort errors handed over."""
    counts.fold()
    cohort_errors, counts.cohort_errors = counts.cohort_errors, []
    return VersionTotals(
        service=counts.service,
        version=counts.version,
        version_id=counts.version_id,
        requests=[(method, status, n) for (method, status), n in counts.requests.items()],
        attempts=dict(counts.attempts),
        latency=sparse(counts.latency),
        latency_us=counts.latency_us,
        in_flight=counts.in_flight,
        streams=counts.streams,
        judged=[judged.totals(generation, share) for (generation, share), judged in counts.judged.items()],
        cohort_errors=cohort_errors,
        seconds=list(counts.seconds),
        upstream=list(counts.upstream),
        upstream_us=counts.upstream_us,
        own=list(counts.own),
        own_us=counts.own_us,
        retries=dict(counts.retries),
        abandoned=counts.abandoned,
    )


def sparse(buckets: list[int]) -> dict[int, int]:
    """Return the buckets that are not zero, by index."""
    return {index: n for index, n in enumerate(buckets) if n}
