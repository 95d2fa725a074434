"""What somebody says about a service: its routes and its policies, checked."""

from typing import Annotated, Final, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.testers import TesterSettings
from gateway.core.settings.base import Settings
from gateway.core.settings.faults import wrong
from gateway.core.settings.freeze_window import FreezeWindow
from gateway.core.settings.limits import Count, Millis, UpstreamTimeouts
from gateway.core.settings.resilience import BreakerSettings, RetrySettings
from gateway.core.settings.smoke import SmokeSettings
from gateway.core.settings.sticky import StickySettings
from gateway.core.settings.targets import check_networks
from gateway.core.settings.text import (
    FRAMING,
    FieldValue,
    FilePath,
    Host,
    Token,
    normal_method,
    normal_route_host,
    normal_route_path,
    worded,
)

Name = Annotated[
    str,
    worded(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        "a service's name: letters, digits and ._- (63 at most, a letter or digit first)",
    ),
]
BODILESS: Final = frozenset({204, 205, 304})
"""Statuses whose answers have no body (RFC 9110 §15): bytes after the head would be the next answer's."""


class RouteSettings(Settings):
    """A host and a path prefix (whole segments) that lead to a service."""

    host: Annotated[str, Meta(min_length=1, max_length=255)] = "*"
    """A name, `*.example.com`, or `*`; kept as requests name it: lower case, IDNA."""
    path: Annotated[str, Meta(pattern=r"^/", max_length=8192, extra={"is": "a path: it begins with /"})] = "/"
    """Kept as requests are matched: `/café` is `/caf%C3%A9`."""
    strip_prefix: bool = False
    methods: tuple[Token, ...] = ()
    """Empty: all."""

    def __post_init__(self) -> None:
        for name, normal in (("host", normal_route_host), ("path", normal_route_path)):
            try:
                force_setattr(self, name, normal(getattr(self, name)))
            except ValueError as exc:
                raise wrong(name, str(exc)) from exc
        force_setattr(self, "methods", tuple(dict.fromkeys(map(normal_method, self.methods))))


class FallbackSettings(Settings):
    """What answers when no version is usable. Exactly one of status, version, url."""

    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    body: str = ""
    content_type: FieldValue = "text/plain; charset=utf-8"
    version: Annotated[str, Meta(max_length=63)] | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("status", "version", "url") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"fallback needs exactly one of status, version, url; got {', '.join(given) or 'none'}"
            )
        if self.status in BODILESS and self.body:
            raise wrong("body", f"an answer with status {self.status} has none")


class VersionHeaderSettings(Settings):
    """A field by which testers choose a version; stripped from anyone else."""

    name: Token = "X-Service-Version"
    allow_from: tuple[str, ...] = ("127.0.0.0/8",)

    def __post_init__(self) -> None:
        if self.name.lower() in FRAMING | {"host"}:
            raise wrong("name", f"{self.name} is a field that requests need for themselves")
        check_networks("allow_from", self.allow_from)


class UpstreamTlsSettings(Settings):
    """TLS towards https upstreams."""

    verify: bool = True
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    server_name: Host | None = None


class ConcurrencySettings(Settings):
    """At most so many exchanges at once, per worker; a few wait, the rest is shed."""

    limit: Annotated[int, Meta(ge=1)] = 1_000
    queue: Count = 100
    queue_timeout: Millis = 1_000


class WebhookSettings(Settings):
    """Where a service's rollout events go, and who may veto a move."""

    url: str
    on: tuple[str, ...] = ()
    """Event names; empty: all.

    `confirm-start`, `confirm-promote`, `during-step`, `on-rollback` are asked, not told.
    """
    secret: str | None = None
    """Signs the body: `X-Gateway-Signature: sha256=…`."""
    format: Literal["json", "slack"] = "json"
    timeout: Annotated[int, Meta(ge=1, le=60_000)] = 5_000
    on_timeout: Literal["allow", "veto"] = "veto"


class ServiceSettings(Settings):
    """Routes and policies of one service. `false` switches a policy off; None takes the default."""

    routes: tuple[RouteSettings, ...] = ()
    fallback: FallbackSettings | None = None
    health: HealthSettings | bool = HealthSettings()
    breaker: BreakerSettings | bool = BreakerSettings()
    retry: RetrySettings | bool = RetrySettings()
    sticky: StickySettings | None = None
    testers: TesterSettings | None = None
    version_header: VersionHeaderSettings | bool = VersionHeaderSettings()
    smoke_tests: SmokeSettings | None = None
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    concurrency: ConcurrencySettings | None = None
    tls: UpstreamTlsSettings = UpstreamTlsSettings()
    panic: Literal["fail", "use_all"] = "fail"
    """When no endpoint of a version is healthy: fail, or use them all as if they were."""
    slow_start: Millis = 10_000
    """Over how long a new or recovered endpoint ramps up."""
    webhooks: tuple[WebhookSettings, ...] = ()
    keep_versions: Annotated[int, Meta(ge=1, le=1_000)] = 5
    """How many deprecated versions are kept; older ones are deleted, but none that could be needed."""
    freeze_windows: tuple[FreezeWindow, ...] = ()
    """When no rollout of it starts or advances, besides the gateway's own."""
    on_new_version: Literal["refuse", "restart"] = "refuse"
    """A start while a deployment is open: 409, or roll it back and start the newer one."""

    @property
    def named_versions(self) -> frozenset[str]:
        """The versions that these settings send requests to by name, whatever their weight."""
        named = set(self.testers.values.values()) if self.testers is not None else set[str]()
        if self.fallback is not None and self.fallback.version is not None:
            named.add(self.fallback.version)
        return frozenset(named)

    def __post_init__(self) -> None:
        for name in ("health", "breaker", "retry", "version_header"):
            if getattr(self, name) is True:
                raise ValueError(f"{name} is a table of settings, or false to switch it off; not true")
