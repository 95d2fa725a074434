"""A made-up service for the judge to watch: requests, two versions, and what makes them fail.

A `World` answers second by second and knows nothing of the judge; it is only told which share of the traffic
is in force. Each process is named after what goes wrong. "Shared" means that the cause hits whatever version
a request happens to go to; "own" that each version has its own.
"""

import math
import random
from bisect import bisect_right
from typing import ClassVar, Final

import msgspec

from gateway.core.judge.buckets import bucket_of

BASE: Final = 0.005
"""How often a good version fails."""
HABIT_S: Final = 900
"""Seconds of the old version alone before the rollout begins."""
MINUTE: Final = 60
ERROR: Final = "500|GET /"
"""Most of these services have one kind of request."""
ROUTES: Final = tuple(f"GET /api/v{index}" for index in range(20))


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made with. Rates as fractions."""

    rate: float
    """Requests per second, both versions together."""
    old_errors: float = BASE
    new_errors: float = BASE
    seconds: int = 1800
    """How long the rollout may take."""


class Side:
    """What one version did in a second."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.errors: dict[str, int] = {}
        self.users: list[tuple[int, str]] = []
        """(key, kind) of users known by a key who met an error; their errors are among `errors`, too."""
        self.latency: dict[int, int] = {}

    def fail(self, kind: str, count: int = 1) -> None:
        """Count errors."""
        if count:
            self.errors[kind] = self.errors.get(kind, 0) + count

    @property
    def failed(self) -> int:
        """Errors of any kind but 4xx."""
        return sum([count for kind, count in self.errors.items() if not kind.startswith("4")])


class Drip:
    """Failures among a stream of requests: gaps are geometric, so good requests cost nothing."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.rate = 0.0
        self.left = math.inf

    def take(self, requests: int, rate: float) -> int:
        """Return how many of the next `requests` fail if each does with chance `rate`."""
        if rate != self.rate:
            self.rate, self.left = rate, math.inf
            if rate > 0:
                self.left = float(self._gap())
        failed = 0
        while self.left < requests:
            failed += 1
            self.left += 1.0 + self._gap()
        self.left -= requests
        return failed

    def _gap(self) -> int:
        return int(math.log(1 - self.rng.random()) / math.log1p(-self.rate)) if self.rate < 1 else 0


class Times:
    """Stretches of seconds that come by chance."""

    def __init__(self, rng: random.Random, last: int, *, gap_s: float, long_s: float) -> None:
        self.begins: list[float] = []
        self.long_s = long_s
        at = -HABIT_S + rng.expovariate(1 / gap_s)
        while at < last:
            self.begins.append(at)
            at += long_s + rng.expovariate(1 / gap_s)

    def cover(self, t: int) -> bool:
        """Whether second `t` lies in one of them."""
        index = bisect_right(self.begins, t) - 1
        return index >= 0 and t - self.begins[index] < self.long_s


class World:
    """Two versions that fail at constant rates; the others change parts of it."""

    is_bad: ClassVar[bool] = False
    """Whether the new version ought to be stopped."""
    sticky: ClassVar[bool] = False
    has_latency: ClassVar[bool] = False

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        self.rng = rng
        self.setting = setting
        self.drips = (Drip(rng), Drip(rng))
        self.arrived = 0.0
        self.credit = 0.0
        self.first_new: int | None = None
        """Second of the new version's first request."""
        self.first_full: int | None = None
        """Second from which on it had all the traffic for the first time."""

    @property
    def bad_since(self) -> int:
        """The second from which the new version ought to be stopped."""
        return 0

    def rates(self, t: int) -> tuple[float, float]:
        """Return the error rates of the old and the new version in second `t`."""
        return self.setting.old_errors, self.setting.old_errors

    def second(self, t: int, percent: int) -> tuple[Side, Side]:
        """Return what the old and the new version did in second `t` under the share in force."""
        self.arrived += self.setting.rate
        requests = int(self.arrived)
        self.arrived -= requests
        self.credit += requests * percent / 100
        new_n = min(int(self.credit), requests)
        self.credit -= new_n
        if new_n and self.first_new is None:
            self.first_new = t
        if percent == 100 and self.first_full is None:
            self.first_full = t
        old, new = Side(requests - new_n), Side(new_n)
        self.serve(t, percent, old, new)
        return old, new

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        """Let requests fail."""
        for side, drip, rate in zip((old, new), self.drips, self.rates(t), strict=True):
            side.fail(ERROR, drip.take(side.answers, rate) if side.answers else 0)


class Bursts(World):
    """Shared bursts: 20 s in which 20 % fail, every ten minutes on average."""

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.bursts = Times(rng, setting.seconds, gap_s=600, long_s=20)

    def rates(self, t: int) -> tuple[float, float]:
        rate = 0.2 if self.bursts.cover(t) else self.setting.old_errors
        return rate, rate


class OwnBursts(World):
    """Each version has bursts of its own: 3 s in which 20 % fail, every five minutes on average."""

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.bursts = tuple(Times(rng, setting.seconds, gap_s=300, long_s=3) for _ in range(2))

    def rates(self, t: int) -> tuple[float, float]:
        old, new = (0.2 if bursts.cover(t) else self.setting.old_errors for bursts in self.bursts)
        return old, new


class BetaBinomial(World):
    """Every minute has a rate of its own, shared, drawn from Beta(0.5, 99.5): most have none, some 3 %."""

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        minutes = (setting.seconds + HABIT_S) // MINUTE + 1
        self.minutes = [rng.betavariate(0.5, 0.5 / setting.old_errors - 0.5) for _ in range(minutes)]

    def rates(self, t: int) -> tuple[float, float]:
        rate = self.minutes[min((t + HABIT_S) // MINUTE, len(self.minutes) - 1)]
        return rate, rate


class FailingRuns(World):
    """Requests fail in runs, five in a row on average, whatever version each of them goes to."""

    MEAN: Final = 5

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        requests = old.answers + new.answers
        for _ in range(self.drips[0].take(requests, self.setting.old_errors / self.MEAN)):
            length = 1
            while length < requests and self.rng.random() > 1 / self.MEAN:
                length += 1
            fell = sum([self.rng.random() < percent / 100 for _ in range(length)])
            new.fail(ERROR, min(fell, new.answers - new.failed))
            old.fail(ERROR, min(length - fell, old.answers - old.failed))


class Outage(World):
    """Both fail for three minutes, 20, 60 or 100 % of requests, from a random second on."""

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.begin = rng.randrange(setting.seconds)
        self.level = rng.choice((0.2, 0.6, 1.0))

    def rates(self, t: int) -> tuple[float, float]:
        rate = self.level if self.begin <= t < self.begin + 180 else self.setting.old_errors
        return rate, rate


class Diurnal(World):
    """The shared rate goes up and down threefold, an hour for a day."""

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.phase = rng.random()

    def rates(self, t: int) -> tuple[float, float]:
        rate = self.setting.old_errors * 3 ** math.sin(2 * math.pi * (t // 10 / 360 + self.phase))
        return rate, rate


class Drift(World):
    """The shared rate grows sixfold in half an hour."""

    def rates(self, t: int) -> tuple[float, float]:
        rate = self.setting.old_errors * (1 + 5 * max(0, t // 10 * 10) / 1800)
        return rate, rate


class ColdStart(World):
    """A good version that fails 20 % in its process's first ten seconds."""

    def rates(self, t: int) -> tuple[float, float]:
        is_cold = self.first_new is None or t < self.first_new + 10
        return self.setting.old_errors, 0.2 if is_cold else self.setting.old_errors


class EqualLatency(World):
    """Two versions that take equally long: latencies are log-normal, a p95 of 114 ms."""

    has_latency = True
    factor: ClassVar[float] = 1.0

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        super().serve(t, percent, old, new)
        for side, factor in ((old, 1.0), (new, self.factor)):
            for _ in range(side.answers):
                bucket = bucket_of(int(self.rng.lognormvariate(math.log(50_000 * factor), 0.5)))
                side.latency[bucket] = side.latency.get(bucket, 0) + 1


class Latency(EqualLatency):
    """The new version takes twice as long."""

    is_bad = True
    factor = 2.0


class Bad(World):
    """The new version fails more often from its first request on."""

    is_bad = True

    def rates(self, t: int) -> tuple[float, float]:
        return self.setting.old_errors, self.setting.new_errors


class Hangs(World):
    """The new version never answers some requests; clients leave after 2 s. One in 1,000 leaves anyway."""

    is_bad = True
    PATIENCE_S: Final = 2
    IMPATIENT: Final = 0.001

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.leaving = (Drip(rng), Drip(rng))
        self.waiting = [(0, 0)] * self.PATIENCE_S

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        hanging = (
            self.leaving[0].take(old.answers, self.IMPATIENT),
            self.leaving[1].take(new.answers, self.setting.new_errors),
        )
        super().serve(t, percent, old, new)
        self.waiting.append(hanging)
        left = self.waiting.pop(0)
        for side, now, before in zip((old, new), hanging, left, strict=True):
            side.answers += before - now
            side.fail("abandoned|GET /", before)


class NotFound(World):
    """The new version answers more requests with 404."""

    is_bad = True

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.lost = (Drip(rng), Drip(rng))

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        for side, drip in zip((old, new), self.drips, strict=True):
            side.fail(ERROR, drip.take(side.answers, BASE))
        levels = self.setting.old_errors, self.setting.new_errors
        for side, drip, rate in zip((old, new), self.lost, levels, strict=True):
            side.fail("404|GET /", drip.take(side.answers, rate))


class OnePath(World):
    """One path, with 0.5 % of the traffic, fails on the new version; other errors come from everywhere."""

    is_bad = True
    DEAD: Final = "POST /pay"
    PART: Final = 0.005

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.paying = Drip(rng)

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        for side, drip in zip((old, new), self.drips, strict=True):
            for _ in range(drip.take(side.answers, self.setting.old_errors)):
                side.fail(f"500|{self.rng.choice(ROUTES)}")
        new.fail(f"500|{self.DEAD}", self.paying.take(new.answers, self.PART))


class Keyless(World):
    """A sticky service: half of the requests carry no key, and the new version fails all of those."""

    is_bad = True
    sticky = True

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.without = (Drip(rng), Drip(rng))

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        for side, drip in zip((old, new), self.drips, strict=True):
            for _ in range(drip.take(side.answers, BASE)):
                self.meet(side)
        without = self.without[1].take(new.answers, 0.5)
        new.fail(ERROR, min(without, new.answers - new.failed))
        old.fail(ERROR, self.without[0].take(old.answers, BASE / 2))

    def meet(self, side: Side) -> None:
        """Let a user meet an error."""
        side.fail("500||user")
        side.users.append((self.rng.getrandbits(63), "500"))


class StickyLate(World):
    """A sticky service of 3,000 users; after six hours of steps the new version begins to fail."""

    is_bad = True
    sticky = True
    USERS: Final = 3_000
    LATE_S: Final = 6 * 3600

    def __init__(self, rng: random.Random, setting: Setting) -> None:
        super().__init__(rng, setting)
        self.cohort = sorted((rng.random() * 100, rng.getrandbits(63)) for _ in range(self.USERS))
        self.places = [place for place, _ in self.cohort]

    @property
    def bad_since(self) -> int:
        return self.LATE_S

    def rates(self, t: int) -> tuple[float, float]:
        return BASE, self.setting.new_errors if t >= self.LATE_S else BASE

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        edge = bisect_right(self.places, percent)
        users = (self.cohort[edge:], self.cohort[:edge])
        for side, drip, rate, known in zip((old, new), self.drips, self.rates(t), users, strict=True):
            for _ in range(drip.take(side.answers, rate) if known else 0):
                side.fail("500||user")
                side.users.append((self.rng.choice(known)[1], "500"))


class Leak(World):
    """The new version leaks: from minute five on it fails more and more, 30 % in the end."""

    is_bad = True

    @property
    def bad_since(self) -> int:
        return 300

    def rates(self, t: int) -> tuple[float, float]:
        grown = 0.3 * max(0, t // 5 * 5 - 300) / (self.setting.seconds - 300)
        return self.setting.old_errors, min(self.setting.old_errors + grown, 0.3)


class CrashLoop(World):
    """The new version's process dies every 30 s and is not there for 3 s."""

    is_bad = True

    def serve(self, t: int, percent: int, old: Side, new: Side) -> None:
        is_down = new.answers > 0 and self.first_new is not None and (t - self.first_new) % 30 >= 27
        super().serve(t, percent, old, new)
        if is_down:
            new.errors = {"connect|GET /": new.answers}


class Late(World):
    """The new version begins to fail once it has all the traffic; after a switch, a minute later."""

    is_bad = True
    delay_s: int = 0

    @property
    def bad_since(self) -> int:
        return 1_000_000 if self.first_full is None else self.first_full + self.delay_s

    def rates(self, t: int) -> tuple[float, float]:
        is_late = t >= self.bad_since
        return self.setting.old_errors, self.setting.new_errors if is_late else self.setting.old_errors


class OutageThenBad(Late):
    """Both fail 60 % for three minutes once the new version has all the traffic; a minute later it is bad."""

    OUTAGE_S: Final = 180
    delay_s = OUTAGE_S + 60

    def rates(self, t: int) -> tuple[float, float]:
        begun = self.bad_since - self.delay_s
        return (0.6, 0.6) if begun <= t < begun + self.OUTAGE_S else super().rates(t)


WORLDS: Final[dict[str, type[World]]] = {
    "constant": World,
    "bursts-shared": Bursts,
    "bursts-own": OwnBursts,
    "beta-binomial": BetaBinomial,
    "failing-runs": FailingRuns,
    "outage": Outage,
    "diurnal": Diurnal,
    "drift": Drift,
    "cold-start": ColdStart,
    "equal-latency": EqualLatency,
    "bad": Bad,
    "hangs": Hangs,
    "4xx": NotFound,
    "one-path": OnePath,
    "keyless": Keyless,
    "sticky-late": StickyLate,
    "leak": Leak,
    "crash-loop": CrashLoop,
    "late": Late,
    "outage-then-bad": OutageThenBad,
    "latency": Latency,
}
"""By the name of the cell."""
