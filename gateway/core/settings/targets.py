"""Where a url leads, and whether the gateway may go there.

An operator's url makes the gateway connect to something, so what must never be reached that way is named
here: the addresses clouds keep credentials at, what is not one host, and the gateway itself. A name is
judged by every address it resolves to, each time it is resolved.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from gateway.core.settings.faults import wrong
from gateway.core.settings.text import is_host_name
from gateway.errors import ConfigError

Scheme = Literal["http", "https", "unix"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WRITABLE: Final = re.compile(r"[!-\[\]-~]+")
"""Visible ASCII but the backslash, which some parsers take for a slash."""
_BARE: Final = re.compile(r"([\w.-]+|\[[\da-fA-F:]+\])(:\d+)?", re.ASCII)
"""A host, and perhaps a port, as other tools take it."""
_NUMERIC: Final = re.compile(r"(^|\.)([0-9]+|0[xX][0-9A-Fa-f]*)\.?$")
"""The end of a host that resolvers take for an address, however it is spelled (`127.1`, `0x7f000001`)."""
_AFTER_AUTHORITY: Final = re.compile(r"[/?#\\]")
_METADATA_NAMES: Final = frozenset({"metadata.google.internal", "metadata", "instance-data"})
_METADATA: Final = frozenset(
    {
        ipaddress.ip_address("169.254.169.254"),
        ipaddress.ip_address("fd00:ec2::254"),
        ipaddress.ip_address("100.100.100.200"),
    }
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Target(NamedTuple):
    """Where a url leads. unix: `path` is the socket's, host is empty and port 0."""

    scheme: Scheme
    host: str
    """Lower case, without brackets."""
    port: int
    path: str
    address: str = ""
    """The host, if it is a numeric address; else empty."""

    @property
    def is_named(self) -> bool:
        """Whether the host is a name that has to be looked up."""
        return self.scheme != "unix" and not self.address


class Listener(NamedTuple):
    """One of the gateway's own listening sockets: a numeric address, and the port as bound."""

    address: str
    port: int

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, text: str) -> "Listener":
        """Take `host:port` or `[v6]:port` apart; host: numeric, or `localhost`. Raises ConfigError."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ConfigError("", f"{text!r} is not host:port")
        host = host.removeprefix("[").removesuffix("]")
        if host == "localhost":
            host = "127.0.0.1"
        try:
            ipaddress.ip_address(host)
        except ValueError as exc:
            raise ConfigError("", f"{host!r} is not a numeric address") from exc
        return cls(host, int(port))


class TargetRules(NamedTuple):
    """Where this gateway may connect to, whatever makes it connect."""

    allowed: Sequence[str] = ()
    """Networks (CIDR); none: all."""
    own: Callable[[], Sequence[Listener]] = tuple
    """The gateway's listeners, as bound."""
    is_local: Callable[[str], bool] = lambda address: False
    """Whether a numeric address is this machine's."""
    forbidden: Callable[[str], str] = lambda path: ""
    """Why nobody may be sent to a socket file; empty if one may."""
    unlisted: Callable[[str], str] = lambda path: ""
    """Why the API may not name a socket file; empty if it may."""

    def check(self, url: str, address: str = "") -> None:
        """Refuse a url that must not be connected to, as `check_target` does."""
        check_target(url, address, allowed=self.allowed, own=self.own(), is_local=self.is_local)
        target = parse_url(url)
        if target.scheme == "unix" and (reason := self.forbidden(target.path)):
            raise ConfigError("", f"{url!r} leads to {reason}")

    def check_named(self, url: str) -> None:
        """Refuse a url that the API must not name: as `check`, and a socket that nobody has opened for it."""
        self.check(url)
        target = parse_url(url)
        if target.scheme == "unix" and (reason := self.unlisted(target.path)):
            raise ConfigError("", f"{url!r} leads to a socket {reason}")

    def permits(self, url: str, address: str = "") -> bool:
        """Return whether `check` would let one connect there."""
        try:
            self.check(url, address)
        except ConfigError:
            return False
        return True


ANYWHERE: Final = TargetRules()
"""No rules but those that hold for everybody."""


def parse_target(url: str) -> Target:
    """Take the url of a version apart: `http://host[:port]`, `https://…`, or `unix:/path`.

    Raises ConfigError saying what is wrong: not such a url, credentials, or a path (routes have those).
    """
    target = parse_url(url)
    if target.scheme != "unix" and target.path not in ("", "/"):
        raise ConfigError("", f"{url!r}: a version's url ends after its host and port")
    return target


@lru_cache(maxsize=1024)  # a version's urls are asked about time and again
def parse_url(url: str) -> Target:
    """Take any url the gateway is to call apart. Raises ConfigError, as `parse_target` does."""
    if not url.startswith("unix:") and "@" in _AFTER_AUTHORITY.split(url.partition("//")[2], maxsplit=1)[0]:
        raise ConfigError("", "a url must not hold credentials")  # and they are not repeated here
    if not _WRITABLE.fullmatch(url):
        raise ConfigError("", "this is not a url: it holds spaces or unusual characters")
    if url.startswith("unix:"):
        return _unix(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError("", f"{url!r} is not a url: {exc}") from exc
    if parts.scheme not in ("http", "https") or not host:
        meant = f"; http://{url}?" if _BARE.fullmatch(url) else ""
        raise ConfigError("", f"{url!r} is not an http:, https: or unix: url{meant}")
    if parts.fragment or port == 0:
        raise ConfigError("", f"{url!r}: neither a fragment nor port 0 leads anywhere")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    port = port or (443 if parts.scheme == "https" else 80)
    return Target(cast(Scheme, parts.scheme), host, port, path, _address_of(host))


def _address_of(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _unix(url: str) -> Target:
    path = url.removeprefix("unix:").removeprefix("//")
    if path.endswith("/") or any(part in (".", "..") for part in path.split("/")):
        raise ConfigError("", f"{url!r} names no socket file plainly")
    if not path.startswith("/"):
        raise ConfigError("", f"{url!r} is not unix: and an absolute path")
    return Target("unix", "", 0, path)


def check_target(
    url: str,
    address: str = "",
    *,
    allowed: Iterable[str] = (),
    own: Iterable[Listener] = (),
    is_local: Callable[[str], bool] = lambda address: False,
) -> None:
    """Refuse a url that must not be connected to.

    address: a numeric address its host resolved to; empty: only what the url itself says is judged. allowed:
    networks (CIDR) it must lie in, if any; a socket file and `localhost` count as 127.0.0.1. own: where the
    gateway listens. is_local: whether an address is this machine's. Raises ConfigError with the reason.
    """
    target = parse_url(url)
    if target.host.rstrip(".") in _METADATA_NAMES:
        raise ConfigError("", f"{url!r} leads to a metadata service")
    if _NUMERIC.search(target.host) and not target.address:
        raise ConfigError("", f"{url!r}: write an address as four numbers with dots between")
    if not target.address and target.scheme != "unix" and not is_host_name(target.host.removesuffix(".")):
        raise ConfigError("", f"{url!r}: no host has this name (labels of 1 to 63 letters, digits, - and _)")
    is_here = target.scheme == "unix" or target.host.rstrip(".") == "localhost"  # RFC 6761 §6.3
    literal = address or target.address or ("127.0.0.1" if is_here else "")
    if not literal:
        return
    reached = _plain(ipaddress.ip_address(literal))
    if reason := _forbidden(reached):
        raise ConfigError("", f"{url!r} leads to {reached}, {reason}")
    networks = [ipaddress.ip_network(network, strict=False) for network in allowed]
    if networks and not any(reached in network for network in networks):
        raise ConfigError("", f"{url!r} leads to {reached}, outside the allowed targets")
    if any(_is_own(listener, reached, target.port, is_local) for listener in own):
        raise ConfigError("", f"{url!r} leads back to the gateway itself")


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 form of one stands for; others as they are."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _forbidden(address: Address) -> str:
    """Return why nobody may be sent there; empty if one may."""
    if address in _METADATA:
        return "a metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified or address.is_multicast or address == ipaddress.ip_address("255.255.255.255"):
        return "which is not the address of one host"
    return ""


def check_networks(field: str, networks: Sequence[str]) -> None:
    """Raise the ValueError of `wrong` for the first of a field's networks that is none."""
    for index, network in enumerate(networks):
        try:
            _network(network)
        except ValueError as exc:
            raise wrong(f"{field}[{index}]", str(exc)) from exc


@lru_cache(maxsize=1024)  # a worker reads the same settings again with each change of weights
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


def _is_own(listener: Listener, reached: Address, port: int, is_local: Callable[[str], bool]) -> bool:
    if port != listener.port:
        return False
    bound = _plain(ipaddress.ip_address(listener.address))
    return reached == bound or (bound.is_unspecified and (reached.is_loopback or is_local(str(reached))))
