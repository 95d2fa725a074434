"""Each test of the edge runs on uvloop, as the gateway does, and on asyncio's own loop."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop


@pytest.fixture(autouse=True, params=["uvloop", "asyncio"])
def loop_policy(request: pytest.FixtureRequest) -> Iterator[None]:
    before = asyncio.get_event_loop_policy()
    if request.param == "uvloop":
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    yield
    asyncio.set_event_loop_policy(before)
