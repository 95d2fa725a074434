"""The event stream on the real store."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from gateway.admin.sse import EventFeed
from gateway.store.records import EventRecord
from gateway.store.sqlite import SqliteStore

AT = datetime(2026, 1, 2, tzinfo=UTC)


async def welcome() -> bool:
    return True


async def test_a_commit_wakes_the_stream_and_one_rolled_back_is_never_seen(tmp_path: Path) -> None:
    store = await SqliteStore.open(f"sqlite:///{tmp_path}/gateway.db", now=AT)
    feed = EventFeed(store)
    store.on_event = feed.wake
    stream = feed.stream(0, None, welcome)
    async with asyncio.timeout(30):
        assert (await anext(stream)).startswith(b"retry: ")
        following = asyncio.ensure_future(anext(stream))
        try:
            async with store.transaction() as tx:
                tx.add_event(EventRecord(at=AT, kind="lost"))
                raise LookupError
        except LookupError:
            pass
        async with store.transaction() as tx:
            tx.set_meta("x", b"no event")
        async with store.transaction() as tx:
            tx.add_event(EventRecord(at=AT, kind="service.paused", service="auth"))
        assert b"event: service.paused" in await following
    await stream.aclose()
    await store.close()
