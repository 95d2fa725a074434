"""The control world on a disk that fails when it is told to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store.records import DeploymentRecord
from gateway.store.sqlite import SqliteStore
from tests.unit.control.world import World
from tests.unit.store.failing import Disk, on


class FailingWorld(World):
    """The control world on a disk that fails when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.disk = Disk()

    async def open_store(self, url: str) -> SqliteStore:
        return on(self.disk, await super().open_store(url))

    async def failing_second(self, *, answers: int = 0, errors: int = 0) -> None:
        """Let a second pass whose tick cannot be committed."""
        with pytest.raises(StoreError):
            await self.second(answers=answers, errors=errors)

    async def stored(self, deployment: str) -> DeploymentRecord:
        record = await self.store.deployment(deployment)
        assert record is not None
        return record

    async def in_rows(self, deployment: str) -> tuple[int, int]:
        """Return the new version's answers and errors in the rows for replay."""
        rows = await self.store.windows(deployment_id=deployment)
        return (
            sum(row.answers for row in rows if row.version_id == "v2"),
            sum(sum(row.errors.values()) for row in rows if row.version_id == "v2"),
        )


@asynccontextmanager
async def failing_world(path: Path) -> AsyncIterator[FailingWorld]:
    made = FailingWorld(path)
    await made.open()
    try:
        yield made
    finally:
        made.disk.fails = None
        await made.close()
