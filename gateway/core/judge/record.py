"""The old version's record: how often it fails by itself, to tell what is unusual once it serves no more."""

from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.core.judge.statistics import beta_cdf, wilson_interval
from gateway.core.judge.tallies import Tally

CHUNK_S: Final = 30.0
CHUNKS: Final = 30
"""Fifteen minutes: a short outage is a small part of them."""
READ_SHARE: Final = 0.5
"""While the old version has more of the traffic than this, nothing is measured by its record."""
ENOUGH_ANSWERS: Final = 100
"""Fewer old answers than this are no record, but a guess: `LITTLE_ERRORS` in `LITTLE_ANSWERS` are added."""
LITTLE_ERRORS: Final = 1
LITTLE_ANSWERS: Final = 20
OUTLIER: Final = 1e-4
"""A chunk whose errors have a smaller chance at the rate of the others is not how the version usually is."""
MAX_DISPERSION: Final = 6.0
"""Errors that come in clumps are discounted by at most this, or one outage would blind for good."""
FAILING: Final = 0.5
"""An old version that fails so much is no measure, and nowhere to go back to in a hurry."""
RAISED_S: Final = 60.0
"""What an ask saw raises the measure for so long, and no longer: for good it would blind as well."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Some seconds of the old version."""

    seconds: float
    """0: what it did before anybody looked."""
    tally: Tally
    share: float
    """Of the traffic, that it had meanwhile (0-1)."""


class Record(msgspec.Struct, frozen=True):
    """How the old version did while it served, without what was out of the ordinary."""

    chunks: tuple[Chunk, ...] = ()
    """Oldest first; the last is being filled."""
    rate: float = LITTLE_ERRORS / LITTLE_ANSWERS
    """As a fraction; of too few answers, a guess."""
    answers: int = 0
    """What that rests on."""
    upper: float = 1.0
    """The upper end of that rate's 95 % interval."""
    clumping: float = 0.0
    """How many times more than independent ones the errors of all the traffic vary, less one."""
    raised: float = 0.0
    """What an ask has just seen both do, as a fraction."""
    raised_s: float = -RAISED_S
    """Seconds for which that still counts; below 0, how long it no longer did, down to -`RAISED_S`."""
    cleared: int = 0
    """How many asks have cleared the new version: each makes the next suspicion want more."""

    @property
    def usual(self) -> float:
        """The rate new errors are measured by."""
        return max(self.rate, self.raised) if self.raised_s > 0 else self.rate

    @property
    def tolerated(self) -> float:
        """The highest rate the old version may usually have; 1 where there is no record."""
        return max(self.upper, self.raised) if self.raised_s > 0 else self.upper

    def dispersion(self, share: float) -> float:
        """Return how many times more than independent ones the errors of this share of the traffic vary."""
        return min((1 + self.clumping * share) * (1 + self.cleared), MAX_DISPERSION)

    @property
    def was_well(self) -> bool:
        """Whether the old version did not fail most requests itself a minute ago."""
        if self.raised >= FAILING and self.raised_s > -RAISED_S:
            return False
        return self.rate < FAILING

    def lifted(self, rate: float) -> "Record":
        """Return the record after an ask that cleared the new version: both had `rate`."""
        return replace(self, raised=rate, raised_s=RAISED_S, cleared=self.cleared + 1)

    @property
    def unasked(self) -> "Record":
        """The record as if no ask had ended: what the asks of one course of events saw, is not in another."""
        return replace(self, raised=0.0, raised_s=-RAISED_S, cleared=0)

    def plus(self, seconds: float, answers: int, errors: int, share: float) -> "Record":
        """Return the record with a window of the old version more. share: of the traffic, that it had."""
        if answers <= 0:
            return self
        errors = min(errors, answers)
        last = self.chunks[-1] if self.chunks else None
        if last is not None and 0 < last.seconds < CHUNK_S:
            grown = Chunk(last.seconds + seconds, last.tally.plus(answers, errors), share)
            return replace(self, chunks=(*self.chunks[:-1], grown))
        chunks = (*self.chunks, Chunk(seconds, Tally(answers, errors), share))
        record = replace(self, chunks=_bounded(chunks))
        return record.read() if share <= READ_SHARE else record

    def read(self) -> "Record":
        """Return the record with its figures drawn from its chunks."""
        clumping = _clumping(self.chunks)
        tally = _usual(self.chunks, clumping)
        is_little = tally.answers < ENOUGH_ANSWERS
        more = (LITTLE_ERRORS, LITTLE_ANSWERS) if is_little else (LITTLE_ERRORS / 2, LITTLE_ERRORS)
        return replace(
            self,
            rate=min((tally.errors + more[0]) / (tally.answers + more[1]), 0.99),
            answers=tally.answers,
            upper=wilson_interval(tally.errors, tally.answers)[1],
            clumping=clumping,
        )

    def passed(self, seconds: float) -> "Record":
        """Return the record after some seconds of serving."""
        if self.raised_s <= -RAISED_S:
            return self
        return replace(self, raised_s=max(-RAISED_S, self.raised_s - seconds))


def _bounded(chunks: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """Drop what is older than the record reaches, unless the rest would say too little."""
    rest = chunks[1:]
    if len(chunks) <= CHUNKS or sum([chunk.tally.answers for chunk in rest]) < 10 * ENOUGH_ANSWERS:
        return chunks if len(chunks) < 4 * CHUNKS else rest
    return rest


def _sum(chunks: tuple[Chunk, ...] | list[Chunk]) -> Tally:
    return Tally(
        sum([chunk.tally.answers for chunk in chunks]), sum([chunk.tally.errors for chunk in chunks])
    )


def _usual(chunks: tuple[Chunk, ...], clumping: float) -> Tally:
    """Return the counts of the better half of the chunks, and of all worse ones that do not stand out."""
    half = _sum(chunks).answers / 2
    usual = Tally()
    for chunk in sorted(chunks, key=lambda chunk: chunk.tally.rate):
        errors, answers = chunk.tally.errors, chunk.tally.answers
        if usual.answers >= half and errors > 1:
            rate = (usual.errors + 1) / (usual.answers + 2)
            alone = errors / min(1 + clumping * chunk.share, MAX_DISPERSION)
            if beta_cdf(rate, alone, answers - alone + 1) < OUTLIER:
                break
        usual = usual.plus(answers, errors)
    return usual


def _clumping(chunks: tuple[Chunk, ...]) -> float:
    """Return how the errors clump: Pearson's statistic beyond what chance explains, for all the traffic.

    Of a clump, a version meets its share: what varies more grows with the share of who is looked at.
    """
    watched = [chunk for chunk in chunks if chunk.seconds > 0]
    total = Tally(
        sum([chunk.tally.answers for chunk in watched]), sum([chunk.tally.errors for chunk in watched])
    )
    if len(watched) < 5 or total.errors < 5:
        return 0.0
    beyond = shares = 0.0
    for chunk in watched:
        expected = total.rate * chunk.tally.answers
        beyond += (chunk.tally.errors - expected) ** 2 / expected - 1
        shares += chunk.share
    return max(beyond / shares, 0.0)
