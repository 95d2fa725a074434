"""Where a version's url may lead: what is a target at all, and which addresses are never one."""

import ipaddress
from collections.abc import Iterable
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.errors import GatewayError

METADATA: Final = frozenset(
    {"169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"}
)
"""Addresses at which clouds give out credentials."""


class BadTarget(GatewayError):
    """A url that no version may have. The text says why."""

    status = 422
    title = "Unprocessable Content"


class Target(msgspec.Struct, frozen=True):
    """A url taken apart. `unix`: only `path` is set."""

    scheme: Literal["http", "https", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_named(self) -> bool:
        """Whether the host is a name, to be looked up, and not an address."""
        return self.scheme != "unix" and _address(self.host) is None


def parse_target(url: str) -> Target:
    """Return the parts of `http://host[:port]`, `https://…` or `unix:/path`. Raises BadTarget."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise BadTarget(f"{url!r}: a unix target is unix:/absolute/path")
        return Target("unix", path=path)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise BadTarget(f"{url!r} is not a url: {exc}") from exc
    if parts.scheme not in ("http", "https"):
        raise BadTarget(f"{url!r}: the scheme must be http, https or unix")
    if not parts.hostname or any(char <= " " for char in url):
        raise BadTarget(f"{url!r} has no host")
    if parts.username is not None or parts.password is not None:
        raise BadTarget("a url with credentials in it is refused")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadTarget(f"{url!r}: only scheme, host and port; requests bring their own path")
    if port == 0:
        raise BadTarget(f"{url!r}: port 0 is no port")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Target(scheme, parts.hostname, port or (443 if scheme == "https" else 80))


def check_target(
    url: str,
    address: str | None = None,
    *,
    allowed: Iterable[str] = (),
    own: Iterable[tuple[str, int]] = (),
) -> Target:
    """Return the parts of a url that a version may lead to.

    address: what its host resolves to, when that is known. allowed: networks; empty: any. own: (host, port)
    the gateway listens on. Raises BadTarget.
    """
    target = parse_target(url)
    if target.scheme == "unix":
        return target
    ip = _address(address or target.host)
    if ip is None:
        return target
    if ip.is_link_local or ip.is_multicast or str(ip) in METADATA:
        raise BadTarget(f"{url!r}: link-local, multicast and metadata addresses are refused")
    networks = [ipaddress.ip_network(network) for network in allowed]
    if networks and not any(ip in network for network in networks if network.version == ip.version):
        raise BadTarget(f"{url!r}: {ip} is outside allowed_targets")
    for host, port in own:
        if port == target.port and _is_own(ip, host):
            raise BadTarget(f"{url!r} is the gateway's own listener {host}:{port}")
    return target


def _is_own(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> bool:
    """Whether connecting to `ip` reaches a listener on `host`; a wildcard hears every local address."""
    listener = _address(host)
    if listener is None:
        return False
    if listener.is_unspecified:
        return ip.is_loopback or ip.is_unspecified
    return ip == listener or (ip.is_unspecified and listener.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return `host` as an address, an IPv4 one in IPv6 clothing as itself; None for a name."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip
