"""What operators send, checked: one struct per request body, and how a body becomes one."""

import json
from math import isfinite
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.actions.problems import FieldError, invalid, invalid_all, malformed
from gateway.core.judge.rules import Effect
from gateway.core.rollout.plan import Percent as StepPercent
from gateway.core.rollout.plan import RolloutSettings, StepSettings
from gateway.core.routing.service import Name, RouteSettings, ServiceSettings
from gateway.core.settings.base import Settings
from gateway.core.settings.faults import camel, fault_of, faults_of, pointer_step
from gateway.core.settings.limits import Millis, PositiveMillis
from gateway.core.settings.smoke import SmokeSettings
from gateway.core.settings.text import worded
from gateway.store.records import Role, Strategy, VersionStatus

T = TypeVar("T")

VersionName = Annotated[
    str,
    worded(
        r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}",
        "a version's name: letters, digits and ._+- (63 at most, a letter or digit first)",
    ),
]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]
Weight = Annotated[int, Meta(ge=0, le=100)]
Percent = Annotated[int, Meta(ge=0, le=100)]
ErrorKind = Annotated[
    str,
    worded(
        r"^([45]xx|[45]\d\d|connect|reset|timeout)",
        "a kind of error: 5xx, 4xx, a status such as 503, connect, reset or timeout",
    ),
]
ServicePattern = Annotated[
    str,
    worded(
        r"^[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,62}",
        "a pattern of services' names: letters, digits, ._- and * or ? (63 at most)",
    ),
]
Label = Annotated[
    str,
    worded(
        r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*",
        "a name on one line: 1 to 100 characters, none that steers a terminal",
        min_length=1,
        max_length=100,
    ),
]
"""A name for people: on one line, and no terminal takes it for a command."""
MAX_DEPTH: Final = 32
"""Of nested JSON. What we take has eight levels at most."""
MAX_LIFE_MS: Final = 10 * 366 * 86_400_000
"""Ten years: what is to live longer does not expire."""
Reason = Annotated[str, Meta(max_length=1000)]


class CreateVersion(Settings):
    """`POST deployment/versions`."""

    service_name: Name
    version: VersionName
    url: Url
    replicas: tuple[Url, ...] = ()
    weight: Weight | None = None
    """None: 100 for a service's first version, else 0."""
    status: VersionStatus | None = None
    """None: `testing`."""
    shutdown_url: Url | None = None
    smoke_tests: SmokeSettings | None = None
    routes: tuple[RouteSettings, ...] = ()
    """For an unknown service: makes it, with these routes."""


class PatchVersion(Settings):
    """`PATCH deployment/versions/:id`: absent fields stay."""

    weight: Weight | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    """Another place of the same build: untested again."""
    replicas: tuple[Url, ...] | UnsetType = UNSET
    status: VersionStatus | UnsetType = UNSET
    shutdown_url: Url | UnsetType | None = UNSET
    smoke_tests: SmokeSettings | UnsetType | None = UNSET


class TestVersion(Settings):
    """`POST deployment/versions/:id/test`."""

    __test__ = False  # a body, whatever pytest makes of its name

    smoke_tests: SmokeSettings | None = None
    """None: the version's, else the service's, else one GET of the health path."""


class DrainVersion(Settings):
    """`POST deployment/versions/:id/drain`."""

    timeout: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    """Milliseconds until what still runs is cut; None: the gateway's `shutdown.drain`."""


class RolloutFields(Settings, frozen=True, kw_only=True):
    """A rollout's settings (`core.rollout_settings.RolloutSettings`), each absent unless it was given."""

    steps: tuple[StepPercent | StepSettings, ...] | UnsetType = UNSET
    step_interval: PositiveMillis | tuple[PositiveMillis, ...] | UnsetType = UNSET
    initial_percent: StepPercent | UnsetType | None = UNSET
    error_threshold: Annotated[float, Meta(gt=0, lt=100)] | UnsetType = UNSET
    min_requests: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType = UNSET
    max_latency_ratio: Annotated[float, Meta(ge=1, le=100)] | UnsetType | None = UNSET
    on_latency: Effect | UnsetType = UNSET
    on_shift: Effect | UnsetType = UNSET
    errors: tuple[ErrorKind, ...] | UnsetType = UNSET
    auto_pause: bool | UnsetType = UNSET
    on_breach: Literal["rollback", "pause"] | UnsetType = UNSET
    max_step_time: PositiveMillis | UnsetType | None = UNSET
    on_undecided: Literal["pause", "rollback"] | UnsetType = UNSET
    bake_time: Millis | UnsetType | None = UNSET
    drain_timeout: Millis | UnsetType = UNSET
    smoke_tests: bool | SmokeSettings | UnsetType = UNSET
    dry_run: bool | UnsetType = UNSET
    false_alarm_rate: Annotated[float, Meta(gt=0, le=0.5)] | UnsetType = UNSET
    warm_up: Millis | UnsetType = UNSET
    max_failed_users: Annotated[int, Meta(ge=1, le=1_000_000_000)] | UnsetType | None = UNSET
    mix: bool | UnsetType | None = UNSET

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, by name."""
        values = {name: getattr(self, name) for name in RolloutFields.__struct_fields__}
        return {name: value for name, value in values.items() if value is not UNSET}


class StartDeployment(RolloutFields, frozen=True, kw_only=True):
    """`POST deployment/start`. A field of `config` may also stand beside it, but not in both places."""

    service_name: Name
    to_version: str
    from_version: str | None = None
    """None: the service's current version."""
    strategy: Strategy = "canary"
    config: RolloutFields | None = None

    def rollout(self) -> RolloutSettings:
        """Return the settings, wherever they stood. Raises Problem 422 for one that is given twice."""
        beside, inside = self.given(), self.config.given() if self.config is not None else {}
        for name in beside.keys() & inside.keys():
            raise invalid(f"/{camel(name)}", "is given here and in config")
        return RolloutSettings(**beside, **inside)


class Traffic(Settings):
    """`PUT deployment/:id/traffic`."""

    percent: Percent
    reason: Reason = ""


class Promote(Settings):
    """`POST deployment/:id/promote`."""

    full: bool = False
    """All traffic now, then the bake, instead of the next step."""
    reason: Reason = ""


class Acknowledge(Settings):
    """Body of an acknowledgement: what was found."""

    note: Reason = ""


class Explain(Settings):
    """The optional body of rollback, pause, resume, complete and undo."""

    reason: Reason = ""


class CreateService(ServiceSettings, frozen=True, kw_only=True):
    """`POST services`: a name and the settings a `[[service]]` table takes."""

    name: Name


class CreateToken(Settings):
    """`POST tokens`."""

    name: Label
    role: Role
    owner: Label | None = None
    """Whose it is, where one person has several; None: its name says it."""
    services: ServicePattern = "*"
    """Which services it may change: names, with `*` and `?` for parts of them."""
    expires_in: Annotated[int, Meta(ge=1_000, le=MAX_LIFE_MS)] | None = None
    """Milliseconds; None: it does not expire."""


class RotateToken(Settings):
    """`POST tokens/:id/rotate`."""

    overlap: Annotated[int, Meta(ge=0, le=7 * 86_400_000)] = 0
    """Milliseconds the old secret goes on to work."""
    expires_in: Annotated[int, Meta(ge=1_000, le=MAX_LIFE_MS)] | None = None
    """Milliseconds; None: as long again as the old one was given, if that was limited."""


class Freeze(Settings):
    """`PUT freeze`."""

    frozen: bool
    reason: Reason = ""


class WhatIf(Settings):
    """`POST deployment/whatif`: when would this config have stopped earlier rollouts?"""

    service_name: Name
    strategy: Strategy = "canary"
    config: RolloutFields = RolloutFields()
    deployment_id: str | None = None
    """Only this earlier rollout; None: all whose windows are still stored."""


def parse(kind: type[T], body: bytes) -> T:
    """Return `body` (JSON; empty is `{}`) as a `kind`. Raises Problem 400, or 422 with a pointer."""
    return checked(kind, parse_json(body))


def parse_json(body: bytes) -> Any:
    """Return `body` as plain values; an empty body is `{}`. Raises Problem 400."""
    if not body.strip():
        return {}
    try:
        value = _DECODER.decode(body.decode())
        if b"\\u" in body:
            msgspec.json.decode(body)  # which refuses half of a surrogate pair: only escapes can spell that
    except ValueError as exc:
        raise malformed(f"the body is not JSON: {exc}") from exc
    if _is_deep(value):
        raise malformed("the body is nested too deeply")
    return value


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Refuse one that has a name twice: who read the body before us may have gone by the
    other.

    RFC 8259 §4. Raises Problem 400.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise malformed(f"the body names {twice[:60]!r} twice")
    return found


def _finite(digits: str) -> float:
    """Return a number. Raises ValueError for one that no float holds, and for what is none (`NaN`)."""
    if not isfinite(value := float(digits)):
        raise ValueError(f"{digits[:20]} is no number")
    return value


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_named_once, parse_float=_finite, parse_constant=_finite)


def _is_deep(value: Any) -> bool:
    """Return whether a value is nested deeper than anything we take, and some of us could follow."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for values in inner for each in values if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def checked(kind: type[T], value: object, *, under: str = "") -> T:
    """Return plain `value` as a `kind`. under: JSON pointer of `value` in its body.

    Raises Problem 422 naming every bad field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        faults = faults_of(value, kind) or [fault_of(exc)]
        errors = [
            FieldError(under + "".join(f"/{pointer_step(step)}" for step in fault.steps), fault.reason)
            for fault in faults
        ]
        raise invalid_all(errors) from exc
