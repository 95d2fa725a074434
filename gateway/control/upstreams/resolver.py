"""Host names -> addresses, looked up again every 30 seconds.

Each address a name resolves to is an endpoint of its version. A name that does not resolve keeps the
addresses it had: a name server's bad minute must not empty a version.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from gateway.core.settings.targets import ANYWHERE, TargetRules, parse_target
from gateway.errors import GatewayError
from gateway.log import get_logger

log = get_logger(component="resolver")

INTERVAL_S: Final = 30.0
CONCURRENT: Final = 16

Lookup = Callable[[str, int], Awaitable[list[str]]]


class CatalogView(Protocol):
    """What the resolver needs of the catalog."""

    def named_urls(self) -> Iterable[tuple[str, str]]:
        """Return (version id, url) for every url whose host is a name."""

    def has_address(self, version_id: str, url: str) -> bool:
        """Return whether a version's url has an endpoint."""

    def set_addresses(self, version_id: str, url: str, addresses: tuple[str, ...]) -> bool:
        """Make `addresses` the endpoints of a version's url. Returns whether that changed anything."""


class Resolver:
    """Keeps the addresses of named endpoints fresh."""

    def __init__(
        self,
        catalog: CatalogView,
        *,
        rules: TargetRules = ANYWHERE,
        on_change: Callable[[str], None] = lambda version_id: None,
        lookup: Lookup | None = None,
    ) -> None:
        self._catalog = catalog
        self._rules = rules
        self._on_change = on_change
        self._lookup = lookup or _look_up
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Look every name up, again and again."""
        while True:
            await self.resolve_all()
            await asyncio.sleep(INTERVAL_S)

    async def resolve_all(self) -> None:
        """Look every name up once."""
        await asyncio.gather(*(self.resolve(*named) for named in self._catalog.named_urls()))

    async def resolve_new(self) -> None:
        """Look up every name that has no address yet."""
        named = self._catalog.named_urls()
        await asyncio.gather(*(self.resolve(*each) for each in named if not self._catalog.has_address(*each)))

    async def resolve(self, version_id: str, url: str) -> None:
        """Look one url's host up and hand its addresses to the catalog."""
        target = parse_target(url)
        try:
            async with self._slots:
                found = await self._lookup(target.host, target.port)
        except (OSError, UnicodeError) as exc:  # UnicodeError: what cannot be written as a name
            if url not in self._failing:
                log.warning("name_not_resolved", url=url, error=str(exc))
            self._failing.add(url)
            return
        self._failing.discard(url)
        addresses = tuple(address for address in found if self._is_allowed(url, address))
        if addresses and self._catalog.set_addresses(version_id, url, addresses):
            log.info("addresses_changed", url=url, addresses=addresses)
            self._on_change(version_id)

    def _is_allowed(self, url: str, address: str) -> bool:
        try:
            self._rules.check(url, address)
        except GatewayError as exc:
            log.warning("address_refused", url=url, address=address, reason=str(exc))
            return False
        return True


async def _look_up(host: str, port: int) -> list[str]:
    """Return the host's addresses, sorted, without duplicates."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})
