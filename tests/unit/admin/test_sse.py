"""A stream sees every event once and in order, whether it was there when the event happened or not."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from gateway.admin.call import BASE
from gateway.admin.sse import STREAMS, EventFeed, encode_event
from gateway.store.records import EventRecord
from tests.unit.admin.bench import AT, Bench


def event(number: int, service: str = "auth") -> EventRecord:
    return EventRecord(id=number, at=AT, kind="deployment.step", service=service, data={"text": "a\nb"})


async def welcome() -> bool:
    return True


async def gone() -> bool:
    return False


async def next_of(stream: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(10):
        return await anext(stream)


def ids(piece: bytes) -> list[int]:
    return [int(line[4:]) for line in piece.splitlines() if line.startswith(b"id: ")]


def test_an_event_is_one_block_of_one_data_line() -> None:
    block = encode_event(event(7))
    assert block.endswith(b"\n\n")
    lines = block.strip().split(b"\n")
    assert lines[:2] == [b"id: 7", b"event: deployment.step"]
    assert json.loads(lines[2].removeprefix(b"data: "))["data"] == {"text": "a\nb"}
    assert len(lines) == 3


async def test_what_was_missed_comes_before_what_happens(bench: Bench) -> None:
    feed = EventFeed(bench.store)
    bench.store.event_records = [event(1), event(2), event(3)]
    stream = feed.stream(1, None, welcome)
    assert (await next_of(stream)).startswith(b"retry: ")
    assert ids(await next_of(stream)) == [2, 3]
    following = asyncio.ensure_future(next_of(stream))
    await asyncio.sleep(0)
    bench.store.event_records.append(event(4))
    feed.wake()
    assert ids(await following) == [4]
    await stream.aclose()  # type: ignore[attr-defined]
    assert feed.open == 0


async def test_a_stream_that_never_rests_ends_with_its_token_too(bench: Bench) -> None:
    """Guards against a revoked token that goes on listening for as long as something happens all the time."""
    feed = EventFeed(bench.store, heartbeat_s=0.0)
    bench.store.event_records = [event(number) for number in range(1, 500)]
    pieces = [piece async for piece in feed.stream(0, None, gone)]
    assert [ids(piece) for piece in pieces] == [[]], "only what opens the stream"


async def test_an_event_between_reading_and_resting_is_not_missed(bench: Bench) -> None:
    feed = EventFeed(bench.store)
    read = bench.store.events

    async def late(**query: Any) -> list[EventRecord]:
        found: list[EventRecord] = await read(**query)
        if not bench.store.event_records:
            bench.store.event_records.append(event(1))
            feed.wake()
        return found

    bench.store.events = late
    stream = feed.stream(0, None, welcome)
    await next_of(stream)
    assert ids(await next_of(stream)) == [1]


async def test_only_the_service_asked_for_is_sent(bench: Bench) -> None:
    bench.store.event_records = [event(1, "auth"), event(2, "billing")]
    stream = EventFeed(bench.store).stream(0, "billing", welcome)
    await next_of(stream)
    assert ids(await next_of(stream)) == [2]


async def test_a_quiet_stream_beats_and_ends_when_the_token_is_revoked(bench: Bench) -> None:
    stream = EventFeed(bench.store, heartbeat_s=0.01).stream(0, None, welcome)
    await next_of(stream)
    assert (await next_of(stream)).startswith(b":")
    stream = EventFeed(bench.store, heartbeat_s=0.01).stream(0, None, gone)
    assert [piece async for piece in stream] == [b"retry: 2000\n\n"]


async def test_closing_ends_every_stream_in_order(bench: Bench) -> None:
    feed = EventFeed(bench.store)
    stream = feed.stream(0, None, welcome)
    await next_of(stream)
    rest = asyncio.ensure_future(_all(stream))
    await asyncio.sleep(0)
    feed.close()
    async with asyncio.timeout(10):
        assert await rest == []
    assert feed.open == 0


async def _all(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in stream]


async def test_the_endpoint_streams_from_last_event_id(bench: Bench) -> None:
    bench.store.event_records = [event(1), event(2)]
    response = await bench.ask("GET", f"{BASE}/events", role="viewer", last_event_id="1")
    assert (response.status, dict(response.fields)["Content-Type"]) == (200, "text/event-stream")
    await next_of(response.body)
    assert ids(await next_of(response.body)) == [2]
    response = await bench.ask("GET", f"{BASE}/events", role="viewer", last_event_id="x")
    assert response.status == 400


async def test_a_client_that_saw_nothing_may_ask_for_everything(bench: Bench) -> None:
    """0 is an id as well, and not the absence of one."""
    bench.store.event_records = [event(1), event(2)]
    response = await bench.ask("GET", f"{BASE}/events", role="viewer", last_event_id="0")
    await next_of(response.body)
    assert ids(await next_of(response.body)) == [1, 2]


async def test_without_last_event_id_a_stream_begins_now(bench: Bench) -> None:
    bench.store.event_records = [event(1), event(2)]
    response = await bench.ask("GET", f"{BASE}/events", role="viewer")
    await next_of(response.body)
    bench.store.event_records.append(event(3))
    bench.server.feed.wake()
    assert ids(await next_of(response.body)) == [3]


async def test_too_many_streams_are_refused(bench: Bench) -> None:
    bench.server.feed.open = STREAMS
    response = await bench.ask("GET", f"{BASE}/events", role="viewer")
    assert (response.status, dict(response.fields)["Retry-After"]) == (503, "5")


async def test_events_as_json_are_a_list(bench: Bench) -> None:
    bench.actions.answers["gateway.events"] = [event(1)]
    response = await bench.ask("GET", f"{BASE}/events", role="viewer", accept="application/json")
    assert [item["id"] for item in json.loads(response.body)["items"]] == [1]
