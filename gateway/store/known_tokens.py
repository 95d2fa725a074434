"""The tokens in memory: who may come in must not depend on a disk that fails, or a database that is away."""

from collections.abc import Awaitable, Callable, Iterable

from gateway.store.records import TokenRecord


class KnownTokens:
    """Tokens by hash, as they are committed: whoever keeps them here is the only one to write them."""

    def __init__(self, load: Callable[[], Awaitable[Iterable[TokenRecord]]]) -> None:
        """load: reads all of them."""
        self._load = load
        self._tokens: dict[str, TokenRecord] | None = None
        """None: not read yet."""
        self._commits = 0

    async def by_hash(self, digest: str) -> TokenRecord | None:
        """Return the token of this hash; None: there is none. Raises StoreError if they were never read."""
        while self._tokens is None:
            seen = self._commits
            found = {record.hash: record for record in await self._load()}
            if seen == self._commits:  # else some were committed while we read
                self._tokens = found
        return self._tokens.get(digest)

    def follow(self, records: list[TokenRecord]) -> None:
        """Let memory follow a commit."""
        self._commits += bool(records)
        if self._tokens is not None:
            self._tokens.update((record.hash, record) for record in records)

    async def reread(self) -> None:
        """Read them again, and know the old ones until then. Raises StoreError."""
        seen = self._commits
        found = {record.hash: record for record in await self._load()}
        if seen == self._commits:
            self._tokens = found

    def forget(self) -> None:
        """Read them again: others may have written them."""
        self._tokens = None
