"""Seeded random attacks on a real data plane, from both sides: whatever comes, a few things always hold.

No exception reaches the loop; nothing of one exchange appears in another; every connection ends or goes on in
order; no upstream sees a request that h11 does not see in the same bytes; and in the end nothing is held.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import h11
import pytest

from gateway.core.routing.service import ConcurrencySettings
from gateway.core.settings.limits import Timeouts
from gateway.core.settings.resilience import RetrySettings
from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import Peer, Proxy, Upstream, eventually, proxying

QUICK = ProxySettings(
    timeouts=Timeouts(client_header=200, client_idle=200, body_idle=200, response_header=200, connect=5000)
)
"""Broken messages end by their timeouts: these are met many times in a run."""
AT_ONCE = 32
SMUGGLED = b"GET /@-smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@asynccontextmanager
async def watched(*upstreams: Upstream, **settings: Any) -> AsyncIterator[Proxy]:
    """Run a plane, and check at the end that it let go of everything and never failed."""
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    async with proxying(*upstreams, proxy=QUICK, breaker=False, **settings) as proxy:
        descriptors = open_descriptors()
        yield proxy
        plane = proxy.plane
        for client in proxy.clients:
            client.reset()
        await eventually(lambda: not plane.connections)
        await eventually(lambda: not plane.leaks())
        for pool in plane.pools.open:
            pool.sweep(float("inf"))
        for upstream in upstreams:
            for peer in upstream._peers:
                peer.reset()
        await eventually(lambda: open_descriptors() <= descriptors)
    assert failures == []


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def many(count: int, attack: Any) -> None:
    """Run `attack(number)` for each number, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await attack(number)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number), name=f"attack {number}")


async def send_in_pieces(peer: Peer, data: bytes, chance: Random) -> None:
    """Send `data` cut at a few random places."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 1, 3, 8))))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if peer.writer.transport.is_closing():
            return
        peer.send(data[start:end])
        if chance.random() < 0.7:
            await asyncio.sleep(0)


# Hostile clients

REQUESTS = (
    b"GET /@ HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD /@?q HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\n\r\n",
    b"POST /@ HTTP/1.1\r\nHost: h\r\nContent-Length: %(size)d\r\n\r\n%(smuggled)b",
    b"PUT /@ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%(size)x\r\n%(smuggled)b\r\n0\r\nX-T: 1\r\n\r\n",
    b"POST /@ HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://h/@ HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    b"GET /@ HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS /@ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
)
SPICES = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"0", b"1", b"-", b"+", b"\xff", b"chunked",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n",
    b"Connection: close\r\n", b"Host: i\r\n", b"Expect: 100-continue\r\n", b" HTTP/1.1", b"\x0b", b"\r\n ",
    b"0\r\n\r\n", SMUGGLED,
)  # fmt: skip


def request_of(name: bytes, chance: Random) -> bytes:
    """Return a sound request for `/name`; its body, if it has one, looks like another."""
    smuggled = SMUGGLED.replace(b"@", name)
    template = chance.choice(REQUESTS).replace(b"@", name)
    return template % {b"size": len(smuggled), b"smuggled": smuggled}


def spoilt(data: bytes, chance: Random) -> bytes:
    """Return `data` with a few random changes."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            data = data[:at] + chance.choice(SPICES) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + chance.randrange(1, 5) :]
        elif kind == 2:
            data = data[:at] + bytes((chance.randrange(256),)) + data[at + 1 :]
        else:
            data = data[:at] + data[max(0, at - 20) : at] + data[at:]
    return data


def read_by_h11(data: bytes) -> list[bytes]:
    """Return the targets of the requests an independent parser finds, up to where it refuses to go on.

    Each is read by a connection of its own: h11 neither ignores empty lines between two requests (RFC 9112
    §2.2) nor keeps connections for HTTP/1.0, and we do both.
    """
    targets: list[bytes] = []
    while data := data.lstrip(b"\r\n"):
        line, end, rest = data.partition(b"\r\n")
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
        # We percent-encode what is no ASCII in a target; h11 refuses it.
        connection.receive_data(re.sub(rb"[\x80-\xff]", b"~", line) + end + rest)
        try:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                break
            targets.append(request.target)
            while isinstance(connection.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            break
        if connection.their_state in (h11.SEND_BODY, h11.ERROR):
            break
        if connection.their_state is h11.MUST_CLOSE and request.http_version != b"1.0":
            break
        data, _ = connection.trailing_data
    return targets


def origin_of(target: bytes) -> bytes:
    return re.sub(rb"(?i)^https?://[^/?]*", b"", target).partition(b"?")[0]


class Recorder(Upstream):
    """Answers every request with its target, framed in various ways, and notes what it saw for whom."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: dict[bytes, list[bytes]] = {}

    async def serve(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            method, target, version = head.split(b"\r\n")[0].split(b" ")
            assert version == b"HTTP/1.1"
            lower = head.lower()
            lengths = re.findall(rb"\r\ncontent-length: (\d+)\r\n", lower)
            is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in lower
            assert len(lengths) + is_chunked <= 1, "one framing goes out"
            assert lower.count(b"\r\nhost: ") == 1
            body = await self._body(peer, lengths, is_chunked=is_chunked)
            if numbers := re.findall(rb"n([0-9a-f]{8})-", target):
                self.targets.setdefault(numbers[0], []).append(target)
            self._answer(peer, method, target, len(body))

    async def _body(self, peer: Peer, lengths: list[bytes], *, is_chunked: bool) -> bytes:
        if not is_chunked:
            return await peer.exactly(int(lengths[0])) if lengths else b""
        body = b""
        while size := int((await peer.until(b"\r\n"))[:-2], 16):
            body += (await peer.exactly(size + 2))[:-2]
        while await peer.until(b"\r\n") != b"\r\n":
            pass
        return body

    def _answer(self, peer: Peer, method: bytes, target: bytes, kind: int) -> None:
        content = b"" if method == b"HEAD" else target
        if kind % 2 and method != b"HEAD":
            framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
            peer.send(
                b"HTTP/1.1 200 OK\r\nX-Target: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % target + framed
            )
        else:
            length = b"Content-Length: %d\r\n\r\n" % len(target)
            peer.send(b"HTTP/1.1 200 OK\r\nX-Target: %b\r\n" % target + length + content)


@pytest.mark.parametrize("seed", range(4))
async def test_no_request_reaches_the_upstream_that_h11_does_not_see(seed: int) -> None:
    recorder = Recorder()
    sent: dict[bytes, bytes] = {}

    async with watched(recorder) as proxy:

        async def attack(number: int) -> None:
            chance = Random(f"{seed} {number}")
            name = b"%08x" % chance.getrandbits(32)
            requests = [request_of(b"n%b-%d" % (name, k), chance) for k in range(chance.randrange(1, 5))]
            sent[name] = data = spoilt(b"".join(requests), chance)
            client = await proxy.client()
            await send_in_pieces(client, data, chance)
            how = chance.random()
            if how < 0.3:
                client.reset()
                return
            if how < 0.5:
                client.writer.write_eof()
            answer = await client.rest()
            others = set(re.findall(rb"n([0-9a-f]{8})-", answer)) - set(re.findall(rb"n([0-9a-f]{8})-", data))
            assert not others, (data, answer)

        await many(150, attack)
    for name in sent.keys() & recorder.targets.keys():  # a name may have been spoilt too
        seen = [origin_of(each) for each in recorder.targets[name]]
        allowed = [origin_of(each) for each in read_by_h11(sent[name])]
        assert len(seen) <= len(allowed), (sent[name], seen, allowed)


# Hostile upstreams

RESPONSES = (
    b"HTTP/1.1 200 OK\r\nX-Token: @\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Token: @\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Token: @\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nX-Token: @\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: @\r\n\r\nHTTP/1.1 204 No Content\r\nX-Token: @\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nX-Token: @\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nX-Token: @\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 503 No\r\nX-Token: @\r\nContent-Length: %d\r\n\r\n",
)


def response_to(token: bytes, chance: Random) -> tuple[bytes, bool]:
    """Return a response that names `token` wherever it can, and whether it is sound."""
    head = chance.choice(RESPONSES).replace(b"@", token)
    content = token * chance.choice((1, 1, 40, 4000))
    if b"%d" in head:
        response = head.replace(b"%d", b"%d" % len(content)) + content
    elif b"chunked" in head:
        half = len(content) // 2
        pieces = (content[:half], content[half:])
        response = head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
    else:
        response = head + (content if b"200" in head else b"")
    is_spoilt, has_surplus = chance.random() < 0.6, chance.random() < 0.15
    if is_spoilt:
        at = chance.randrange(min(len(response), 200) + 1)
        response = response[:at] + spoilt(response[at : at + 40] or b"x", chance) + response[at + 40 :]
    if has_surplus:
        response += b"HTTP/1.1 200 OK\r\nX-Token: %b\r\nContent-Length: 4\r\n\r\nevil" % token
    return response, not is_spoilt and not has_surplus


@pytest.mark.parametrize("seed", range(4))
async def test_no_byte_of_a_response_reaches_another_exchange(seed: int) -> None:
    chance = Random(seed)
    tokens: set[bytes] = set()

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            token = re.findall(rb"<[0-9a-f]{8}>", head.split(b" ")[1])[0]
            response, is_sound = response_to(token, chance)
            if not is_sound:
                # At once: what comes after a response only when the connection has another request under way
                # is, to any HTTP/1.1 client, that request's.
                if not peer.writer.transport.is_closing():
                    peer.send(response)
            else:
                await send_in_pieces(peer, response, chance)
            end = chance.random()
            if end < 0.2:
                return
            if end < 0.3:
                peer.reset()
                return

    async with watched(Upstream(script), retry=False) as proxy:

        async def attack(number: int) -> None:
            own = Random(f"{seed} {number}")
            client = await proxy.client()
            for _ in range(own.randrange(1, 4)):
                token = b"<%08x>" % own.getrandbits(32)
                tokens.add(token)
                method = own.choice((b"GET", b"GET", b"HEAD"))
                upgrade = b"Connection: Upgrade\r\nUpgrade: x\r\n" if own.random() < 0.1 else b""
                client.send(b"%b /%b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (method, token, upgrade))
                if own.random() < 0.1:
                    client.reset()
                    return
                answer, goes_on = await one_answer(client, is_head=method == b"HEAD")
                assert set(re.findall(rb"<[0-9a-f]{8}>", answer)) & tokens <= {token}, (token, answer)
                if not goes_on:
                    return

        await many(150, attack)


@pytest.mark.parametrize("seed", range(2))
async def test_everything_at_once_leaves_nothing_behind(seed: int) -> None:
    """Uploads cut short, clients and upstreams that vanish or stall, retries, and a short queue."""
    chance = Random(seed)
    tokens: set[bytes] = set()

    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            token = re.findall(rb"<[0-9a-f]{8}>", head.split(b" ")[1])[0]
            length = int((re.findall(rb"Content-Length: (\d+)", head) or [b"0"])[0])
            if chance.random() < 0.9:
                await peer.exactly(length)
                length = 0
            end = chance.random()
            if end < 0.1:
                await peer.rest()
            elif end < 0.2:
                peer.reset()
            if end < 0.3 or peer.writer.transport.is_closing():
                return
            peer.send(response_to(token, chance)[0])
            if length or chance.random() < 0.2:
                return

    async def attack(proxy: Proxy, own: Random) -> None:
        client = await proxy.client()
        for _ in range(own.randrange(1, 4)):
            token = b"<%08x>" % own.getrandbits(32)
            tokens.add(token)
            method = own.choice((b"GET", b"HEAD", b"POST", b"PUT"))
            size = own.choice((0, 5, 70_000, 400_000)) if method.startswith(b"P") else 0
            data = b"%b /%b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (method, token, size)
            data = (data + bytes(size))[: own.randrange(1, len(data) + size) if own.random() < 0.1 else None]
            await send_in_pieces(client, data, own)
            if own.random() < 0.15:
                client.reset()
                return
            answer, goes_on = await one_answer(client, is_head=method == b"HEAD")
            assert set(re.findall(rb"<[0-9a-f]{8}>", answer)) & tokens <= {token}, (token, answer)
            if not goes_on:
                return

    queue = ConcurrencySettings(limit=6, queue=8, queue_timeout=100)
    retry = RetrySettings(attempts=3, budget_min_per_second=1000)
    async with watched(Upstream(script), Upstream(script), concurrency=queue, retry=retry) as proxy:
        await many(100, lambda number: attack(proxy, Random(f"{seed} {number}")))


async def one_answer(client: Peer, *, is_head: bool) -> tuple[bytes, bool]:
    """Read an answer as strictly as its framing allows; tells whether the connection is good for another."""
    answer = b""
    try:
        while True:
            head = await client.head()
            answer += head
            status = int(head.split(b" ")[1])
            if status == 101:
                return answer, False
            if status >= 200:
                break
        lower = head.lower()
        lengths = re.findall(rb"\r\ncontent-length: (\d+)\r\n", lower)
        is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in lower
        assert len(lengths) + is_chunked <= 1, head
        if not is_head and status not in (204, 304):
            assert lengths or is_chunked, head
            if is_chunked:
                while size := int((await client.until(b"\r\n"))[:-2], 16):
                    answer += await client.exactly(size + 2)
                assert await client.until(b"\r\n") == b"\r\n"
            else:
                answer += await client.exactly(int(lengths[0]))
        return answer, b"\r\nconnection: close\r\n" not in lower
    except (asyncio.IncompleteReadError, ConnectionError):
        return answer, False
