"""Probe results -> healthy or not."""

import enum
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gateway.core.settings.base import Settings
from gateway.core.settings.faults import wrong
from gateway.core.settings.limits import PositiveMillis
from gateway.core.settings.text import Authority, FieldValue, RequestPath, Token, refuse_framing
from gateway.errors import IllegalTransition


class HealthSettings(Settings):
    """How an endpoint is probed."""

    kind: Literal["http", "tcp"] = "http"
    path: RequestPath = "/api/health"
    interval: PositiveMillis = 10_000
    timeout: PositiveMillis = 5_000
    retries: Annotated[int, Meta(ge=0, le=10)] = 1
    """Further tries inside one check."""
    healthy_threshold: Annotated[int, Meta(ge=1, le=100)] = 2
    unhealthy_threshold: Annotated[int, Meta(ge=1, le=100)] = 3
    expected_status: str = "200-299"
    """Statuses and ranges, comma-separated: `200-299,304`."""
    expected_body: str | None = None
    """Text the body must contain."""
    headers: dict[Token, FieldValue] = {}
    host: Authority | None = None
    """Host field of the probe; None: the endpoint's own."""

    def __post_init__(self) -> None:
        try:
            parse_statuses(self.expected_status)
        except ValueError as exc:
            raise wrong("expected_status", str(exc)) from exc
        refuse_framing(self.headers)


class Health(enum.StrEnum):
    """What the probes say of an endpoint. Only a healthy one is usable."""

    UNKNOWN = "unknown"
    """Never passed yet."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINED = "drained"
    """Taken out for good: no probe brings it back."""


class HealthEvent(enum.Enum):
    """What moves it."""

    UP = "enough checks in a row passed"
    DOWN = "enough checks in a row failed"
    DRAIN = "it is taken out"


MOVES: Final = {
    (Health.UNKNOWN, HealthEvent.UP): Health.HEALTHY,
    (Health.UNKNOWN, HealthEvent.DOWN): Health.UNHEALTHY,
    (Health.UNHEALTHY, HealthEvent.UP): Health.HEALTHY,
    (Health.HEALTHY, HealthEvent.DOWN): Health.UNHEALTHY,
    (Health.UNKNOWN, HealthEvent.DRAIN): Health.DRAINED,
    (Health.HEALTHY, HealthEvent.DRAIN): Health.DRAINED,
    (Health.UNHEALTHY, HealthEvent.DRAIN): Health.DRAINED,
}


def move(health: Health, event: HealthEvent) -> Health:
    """Return the health `event` leads to. Raises IllegalTransition if MOVES has no such pair."""
    try:
        return MOVES[health, event]
    except KeyError:
        raise IllegalTransition(f"what is {health} cannot move because {event.value}") from None


class HealthState:
    """The health of one endpoint, moved by consecutive check results.

    stored: what was known before a restart; it stands, and the thresholds count from the first check after
    the start, so that one lost probe at a restart takes nothing out. What has never passed needs a single
    pass: a new version that answers may start, and one that does not is not usable whatever it is called.
    """

    __slots__ = ("_failures", "_passes", "_settings", "health")

    def __init__(self, settings: HealthSettings, *, stored: Health = Health.UNKNOWN) -> None:
        self.health = stored
        self._settings = settings
        self._passes = 0
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failed checks in a row."""
        return self._failures

    @property
    def is_usable(self) -> bool:
        """Whether it may be sent requests."""
        return self.health is Health.HEALTHY

    def reconfigure(self, settings: HealthSettings) -> None:
        """Take new thresholds; they hold from the next check on."""
        self._settings = settings

    def checked(self, *, ok: bool) -> bool:
        """Count one check (its inner retries are over). Returns whether the health changed."""
        if self.health is Health.DRAINED:
            return False
        self._passes = self._passes + 1 if ok else 0
        self._failures = 0 if ok else self._failures + 1
        if ok:
            needed = 1 if self.health is Health.UNKNOWN else self._settings.healthy_threshold
            due = self.health is not Health.HEALTHY and self._passes >= needed
            return due and self._go(HealthEvent.UP)
        due = self.health is not Health.UNHEALTHY and self._failures >= self._settings.unhealthy_threshold
        return due and self._go(HealthEvent.DOWN)

    def drain(self) -> bool:
        """Take it out for good. Returns whether that is news."""
        return self.health is not Health.DRAINED and self._go(HealthEvent.DRAIN)

    def _go(self, event: HealthEvent) -> bool:
        self.health = move(self.health, event)
        self._passes = 0
        if event is HealthEvent.UP:
            self._failures = 0
        return True


StatusRanges = tuple[tuple[int, int], ...]
"""Inclusive (first, last) pairs."""


@lru_cache(maxsize=1024)  # a worker reads the same settings again with each change of weights
def parse_statuses(text: str) -> StatusRanges:
    """Return the statuses that `200-299,304` names. Raises ValueError that says which part is wrong, and
    how."""
    return tuple(_parse_range(part.strip()) for part in text.split(","))


def _parse_range(part: str) -> tuple[int, int]:
    first_text, dash, last_text = (each.strip() for each in part.partition("-"))
    first = _parse_status(first_text, part)
    last = _parse_status(last_text, part) if dash else first
    if last < first:
        raise ValueError(f"expected status {part!r}: the range runs backwards")
    return first, last


def _parse_status(text: str, part: str) -> int:
    if not (text.isascii() and text.isdigit() and 100 <= int(text) <= 599):
        raise ValueError(f"expected status {part!r}: not a status from 100 to 599, nor a range of them")
    return int(text)


class ProbeCheck(msgspec.Struct, frozen=True):
    """What a probe's answer must be."""

    statuses: StatusRanges
    body: bytes | None = None


def compile_check(settings: HealthSettings) -> ProbeCheck:
    """Return the check of `settings`, ready to judge by."""
    body = settings.expected_body
    return ProbeCheck(parse_statuses(settings.expected_status), body.encode() if body is not None else None)


def judge_probe(check: ProbeCheck, *, status: int, body: bytes) -> str | None:
    """Return what is wrong with a probe's answer, or None if it passes."""
    if not any(first <= status <= last for first, last in check.statuses):
        return f"status {status}, expected {_text_of(check.statuses)}"
    if check.body is not None and check.body not in body:
        return "the body does not contain what it should"  # which may be a secret
    return None


def _text_of(statuses: Sequence[tuple[int, int]]) -> str:
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in statuses)
