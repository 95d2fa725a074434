"""A service's settings, compiled once per table for the requests of this worker."""

import re
from functools import lru_cache
from hashlib import sha256
from typing import Final

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import FallbackSettings, VersionHeaderSettings
from gateway.core.routing.table import Service
from gateway.core.settings.limits import Timeouts
from gateway.http1.codec import mark_of
from gateway.http1.heads import plain_name
from gateway.http1.request import RequestReader
from gateway.net.networks import Networks
from gateway.worker.admission import Admission
from gateway.worker.pool import seconds

_COOKIE: Final = rb"(?:^|;)[ \t]*%b=([^;]*)"


class Policy:
    """What an exchange asks of its service beyond choosing a version."""

    __slots__ = (
        "admission",
        "asking",
        "asking_marks",
        "body_idle_s",
        "connect_s",
        "fallback",
        "fallback_endpoint",
        "issues_cookie",
        "replay_bytes",
        "response_header_s",
        "sticky",
        "stream_idle_s",
        "tester_cookie",
        "tester_header",
        "tester_values",
        "version_allow",
        "version_header",
    )

    def __init__(
        self, service: Service, timeouts: Timeouts, admission: Admission, fallback_endpoint: Endpoint | None
    ) -> None:
        settings = service.settings
        own = settings.timeouts
        self.connect_s = seconds(own, timeouts, "connect")
        self.response_header_s = seconds(own, timeouts, "response_header")
        self.body_idle_s = seconds(own, timeouts, "body_idle")
        self.stream_idle_s = seconds(own, timeouts, "stream_idle")
        admission.configure(settings.concurrency, paused=service.paused)
        self.admission: Admission | None = admission if admission.is_needed else None
        """None on the common path: neither paused nor limited."""
        self.fallback: FallbackSettings | None = settings.fallback
        self.fallback_endpoint = fallback_endpoint
        self.replay_bytes = service.retry.body_bytes if service.retry is not None else 0
        header = _version_header(settings.version_header)
        self.version_header = header.name.lower().encode() if header else b""
        """Lower case; empty: switched off."""
        self.version_allow = _networks(header.allow_from if header else ())
        testers = settings.testers
        self.tester_cookie = testers.cookie.encode() if testers and testers.cookie else b""
        """Name of the cookie that holds a tester's secret; empty: none does."""
        self.tester_header = testers.header.lower().encode() if testers and testers.header else b""
        values = testers.values if testers else {}
        self.tester_values = {digest(each.encode()): wish for each, wish in values.items()}
        """Digest of a secret -> the version it stands for: the time a look-up takes tells no secret."""
        self.asking = frozenset(
            plain_name(each)
            for each in (self.version_header, self.tester_header, b"cookie" if self.tester_cookie else b"")
            if each
        )
        """Plain names of the fields in which a request may ask for a version."""
        self.asking_marks = 0
        """A request without these marks holds none of them (see `RequestReader.marks`)."""
        for each in self.asking:
            self.asking_marks |= mark_of(each)
        self.sticky = service.sticky is not None
        self.issues_cookie = service.sticky.issue_cookie if service.sticky else False


def digest(secret: bytes) -> bytes:
    """Return what stands for a secret in memory."""
    return sha256(secret).digest()


@lru_cache(maxsize=64)
def _networks(texts: tuple[str, ...]) -> Networks:
    """Return the networks of a setting that a thousand services may share."""
    return Networks(texts)


def _version_header(settings: VersionHeaderSettings | bool) -> VersionHeaderSettings | None:
    """Return the settings in force; `true` is the defaults, `false` none."""
    if isinstance(settings, bool):
        return VersionHeaderSettings() if settings else None
    return settings


def sticky_key(by: str, request: RequestReader, client: str) -> bytes | None:
    """Return what identifies the user of a request, or None.

    by: `cookie:NAME`, `header:NAME` or `client_ip`. client: the client's own address.
    """
    kind, _, name = by.partition(":")
    if kind == "client_ip":
        return client.encode()
    if kind == "header":
        return request.field(name.lower().encode()) or None
    cookies = request.field(b"cookie")
    if cookies is None:
        return None
    found = re.search(_COOKIE % re.escape(name.encode()), cookies)
    return found[1].strip(b' \t"') or None if found else None
