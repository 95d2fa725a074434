"""Addresses as text, and sets of networks that hold them."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """A set of networks, asked for addresses. Answers are remembered: the same clients come back."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text, strict=False) for text in texts]
        self.holds = lru_cache(maxsize=4096)(self._holds)

    def _holds(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


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
