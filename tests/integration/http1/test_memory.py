"""A connection that has ended is freed at once: a collector that runs seldom must find nothing of ours.

Guards workers that grew to 2 GB under clients that sent heads they never finished.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.http1.proxying import Peer, Proxy, Upstream, eventually, proxying

AT_ONCE = 10
HEAD = b"GET %b HTTP/1.1\r\nHost: h\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
OURS = ("gateway", "httptools", "uvloop.loop.TCPTransport")

PATTERNS = {
    "nothing sent": b"",
    "part of a request line": b"GET / HT",
    "part of a head": HEAD % b"/" + b"X: " + b"y" * 29_000,
    "malformed head": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "malformed line": b"\0\1\r\n\r\n",
    "whole request": HEAD % b"/" + b"\r\n",
    "last request": HEAD % b"/" + b"Connection: close\r\n\r\n",
    "three at once": (HEAD % b"/" + b"\r\n") * 3,
    "part of a body": POST + b"Content-Length: 100\r\n\r\nabc",
    "part of a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "malformed chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "no answer": HEAD % b"/silent" + b"\r\n",
    "part of an answer": HEAD % b"/cut" + b"\r\n",
    "malformed answer": HEAD % b"/malformed" + b"\r\n",
    "part of an answer's head": HEAD % b"/half" + b"\r\n",
    "upgrade": HEAD % b"/upgrade" + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}
ANSWERS = {
    b"/": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"/malformed": b"HTTP/1.1 200 OK\r\nContent-Le\xffngth: 10\r\n\r\n",
    b"/half": b"HTTP/1.1 200 OK\r\nContent-Le",
    b"/upgrade": b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"/silent": b"",
}
CUT = (b"/cut", b"/half")


async def answer(peer: Peer) -> None:
    """Play an upstream that answers by path."""
    while True:
        path = (await peer.head()).split(b" ")[1]
        peer.send(ANSWERS[path])
        if path in CUT:
            peer.close()
            return


async def come_and_go(proxy: Proxy, data: bytes, *, gently: bool) -> None:
    peer = await proxy.client()
    peer.send(data)
    await asyncio.sleep(0.05)  # some are answered by now, some are not: both must end well
    peer.close() if gently else peer.reset()


@contextmanager
def kept() -> Iterator[Counter[str]]:
    """Count, after the block, what of ours was made in it and only a collector would have freed."""
    found: Counter[str] = Counter()
    gc.freeze()  # what tests before made may end as late as now
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        names = (f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage)
        found.update(name for name in names if name.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


@pytest.mark.parametrize("gently", [True, False], ids=["closed", "reset"])
@pytest.mark.parametrize("pattern", PATTERNS)
async def test_connection_that_has_ended_leaves_no_circle(pattern: str, gently: bool) -> None:
    async with proxying(Upstream(answer), breaker=False, retry=False) as proxy:
        await proxy.ask(PATTERNS["whole request"])
        with kept() as found:
            for _ in range(2):
                crowd = (come_and_go(proxy, PATTERNS[pattern], gently=gently) for _ in range(AT_ONCE))
                await asyncio.gather(*crowd)
            await eventually(lambda: not proxy.plane.connections)
            for pool in proxy.plane.pools.open:
                pool.sweep(float("inf"))
            await eventually(lambda: not proxy.plane.leaks())
            await asyncio.sleep(0.05)  # callbacks of what was closed last
        assert not found
