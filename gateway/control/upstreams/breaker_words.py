"""Puts one worker's breaker words, its own trial calls among them, into a snapshot on its way to it."""

from collections.abc import Mapping

from msgspec.structs import replace

from gateway.core.resilience.breaker import BreakerWord
from gateway.link.snapshot import BreakerView, EndpointSnap, ServiceSnap, Snapshot, VersionSnap

Words = Mapping[str, BreakerWord]
"""By endpoint key; endpoints without one keep what the snapshot says."""


def with_words(snapshot: Snapshot, words: Words) -> Snapshot:
    """Return `snapshot` with `words` in it. Services without one stay the same objects."""
    if not words:
        return snapshot
    services = {name: _service(service, words) for name, service in snapshot.services.items()}
    return replace(snapshot, services=services)


def _service(service: ServiceSnap, words: Words) -> ServiceSnap:
    if not any(endpoint.key in words for version in service.versions for endpoint in version.endpoints):
        return service
    return replace(service, versions=tuple(_version(version, words) for version in service.versions))


def _version(version: VersionSnap, words: Words) -> VersionSnap:
    return replace(version, endpoints=tuple(_endpoint(each, words) for each in version.endpoints))


def _endpoint(endpoint: EndpointSnap, words: Words) -> EndpointSnap:
    word = words.get(endpoint.key)
    if word is None:
        return endpoint
    view = BreakerView(word.epoch, word.state.value, word.grant, word.open_for_s)
    return replace(endpoint, breaker=view)
