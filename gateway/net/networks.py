"""Addresses as text, and sets of networks that hold them."""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_INET: Final = int(socket.AF_INET)
_inet_pton: Final = socket.inet_pton

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """A set of networks, asked for addresses. Of others than IPv4's answers are remembered, and come back."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text, strict=False) for text in texts]
        self._ipv4 = [
            (int(each.network_address), int(each.netmask)) for each in self._networks if each.version == 4
        ]
        """Address and mask."""
        self._holds_other = lru_cache(maxsize=4096)(self._holds_any)

    def holds(self, address: str) -> bool:
        """Tell whether an address is in one of the networks; what is no address is not."""
        if not self._networks:
            return False
        number = ipv4_number(address)
        if number < 0:
            return self._holds_other(address)
        return any(number & mask == network for network, mask in self._ipv4)

    def _holds_any(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


class _Last:
    """The address looked at last and its number: who reads one asks next whether it is trusted."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known = ("", -1)


_LAST: Final = _Last()


def ipv4_number(text: str) -> int:
    """Return the number of an IPv4 address in its one spelling; -1 for anything else."""
    known = _LAST.known
    if text is known[0]:
        return known[1]
    number = -1
    if ":" not in text:
        try:
            packed = _inet_pton(_INET, text)
            number = packed[0] << 24 | packed[1] << 16 | packed[2] << 8 | packed[3]
        except (OSError, ValueError):
            pass
    _LAST.known = (text, number)
    return number


@lru_cache(maxsize=4096)
def canonical_address(text: str) -> str:
    """Return an address in its one spelling, IPv4 inside IPv6 as IPv4; empty if `text` is none.

    An interface behind `%` means nothing to anybody else: such an address is none here.
    """
    if "%" in text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
