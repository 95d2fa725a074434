"""What a service has to do to be deployed without downtime, tried on an instance that has no traffic.

Each check is a coroutine that returns what it saw, or raises Fault with what is wrong. Nothing of the gateway
is in between: the instance itself is asked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from gateway.cli.talk import Answer, Line, Lost, Place, Refused, dial, line_to, once

BOOT_S: Final = 5.0
"""How long it may take to be healthy, if it is not yet."""
FAST_S: Final = 1.0
"""An answer to a health check that takes longer is not fast."""
REQUESTS: Final = 120
"""On one connection, to see whether it is kept."""
UPLOAD_BYTES: Final = 8_000_000
SLOW_CLIENTS: Final = 4
SLOW_S: Final = 2.0
BLOCKED_S: Final = 1.5
"""Who waits so long beside slow clients waits for them."""
STOP_S: Final = 8.0
"""How long it may take from the request to stop to its end."""
LIMITS_S: Final = {
    "health": 8.0,
    "keep-alive": 4.0,
    "head": 3.0,
    "upload": 5.0,
    "slow-client": 5.0,
    "two-versions": 3.0,
    "stop": 10.0,
}
"""How long each check may take; together with the start of the command less than 40 s."""
MAX_IDLE_S: Final = 10.0


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried. path: of any request. upload_path: of large bodies."""

    place: Place
    second: Place | None = None
    health_path: str
    path: str
    upload_path: str
    idle_s: float
    """How long the gateway keeps an idle connection to it."""
    stop: Callable[[], Awaitable[None]] | None = None
    """Asks it to stop. Raises Fault if that cannot be done."""


class Fault(Exception):
    """What is wrong with a service."""


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one check went. skipped: it was not tried, for want of what it needs."""

    name: str
    ok: bool
    detail: str
    skipped: bool = False


NAMES: Final = ("health", "keep-alive", "head", "upload", "slow-client", "two-versions", "idle", "stop")


async def rehearse(instance: Instance, said: Callable[[Check], None] = lambda check: None) -> list[Check]:
    """Try everything, the stop last. said: is called with each check as it ends."""
    checks: list[Check] = []

    async def note(name: str, work: Awaitable[str]) -> None:
        check = await tried(name, work)
        checks.append(check)
        said(check)

    await note("health", asyncio.wait_for(health(instance), LIMITS_S["health"]))
    resting = asyncio.ensure_future(tried("idle", asyncio.wait_for(idle(instance), MAX_IDLE_S + 3)))
    try:
        for name, work in (
            ("keep-alive", keep_alive),
            ("head", head),
            ("upload", upload),
            ("slow-client", slow_client),
        ):
            await note(name, asyncio.wait_for(work(instance), LIMITS_S[name]))
        if instance.second is None:
            checks.append(_not_tried("two-versions", "give the address of another version: --url2 URL"))
            said(checks[-1])
        else:
            await note("two-versions", asyncio.wait_for(two_versions(instance), LIMITS_S["two-versions"]))
        checks.append(await resting)
        said(checks[-1])
    finally:
        resting.cancel()
    if instance.stop is None:
        checks.append(_not_tried("stop", "say how to stop it: --stop-command CMD or --shutdown-url URL"))
        said(checks[-1])
    else:
        await note("stop", asyncio.wait_for(stop(instance), LIMITS_S["stop"]))
    return checks


async def tried(name: str, work: Awaitable[str]) -> Check:
    """Return how a check went."""
    try:
        return Check(name=name, ok=True, detail=await work)
    except (Fault, Lost) as exc:
        return Check(name=name, ok=False, detail=str(exc))
    except TimeoutError:
        return Check(name=name, ok=False, detail=f"no answer within {LIMITS_S.get(name, MAX_IDLE_S):g} s")


def _not_tried(name: str, why: str) -> Check:
    return Check(name=name, ok=True, skipped=True, detail=f"not tried: {why}")


# -- health


async def health(instance: Instance) -> str:
    """It answers its health path fast, and not before it can serve."""
    took_ms = await _healthy(instance)
    for _ in range(10):
        async with asyncio.timeout(FAST_S * 3):
            answer = await once(instance.place, "GET", instance.path)
        if answer.status >= 500:
            raise Fault(
                f"{instance.health_path} says healthy, and {instance.path} answers {answer.status}: "
                "it is called healthy before it can serve"
            )
    return f"{instance.health_path} answers in {took_ms:.0f} ms, and requests are served"


async def _healthy(instance: Instance) -> float:
    """Wait until it is healthy. Returns how long the answer took, in milliseconds."""
    deadline = time.monotonic() + BOOT_S
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(FAST_S * 3):
                answer = await once(instance.place, "GET", instance.health_path)
        except TimeoutError:
            raise Fault(f"{instance.health_path} does not answer within {FAST_S * 3:g} s") from None
        except Lost as exc:
            seen = str(exc)
        else:
            took_s = time.monotonic() - began
            seen = f"{instance.health_path} answers {answer.status}"
            if 200 <= answer.status < 300:
                if took_s > FAST_S:
                    raise Fault(
                        f"{instance.health_path} takes {took_s * 1000:.0f} ms; {FAST_S:g} s is too long"
                    )
                return took_s * 1000
        if time.monotonic() > deadline:
            raise Fault(f"not healthy within {BOOT_S:g} s: {seen}")
        await asyncio.sleep(0.1)


# -- connections


async def keep_alive(instance: Instance) -> str:
    """Connections are kept, and closed with notice."""
    async with line_to(instance.place) as line:
        for count in range(1, REQUESTS + 1):
            try:
                answer = await line.ask("GET", instance.health_path)
            except Lost as exc:
                raise Fault(f"request {count} of a connection: {exc}, and nothing had announced it") from exc
            if answer.closes and count < 10:
                raise Fault(f"the connection is closed after {count} requests: each pays for a new one")
            if answer.closes:
                return f"{count} requests on one connection, then closed with notice"
    return f"{REQUESTS} requests on one connection"


async def idle(instance: Instance) -> str:
    """An idle connection stays open for longer than the gateway keeps it, or says how long."""
    async with line_to(instance.place) as line:
        answer = await line.ask("GET", instance.health_path)
        if answer.closes:
            raise Fault("the connection is closed after its first answer")
        announced = _announced_s(answer)
        kept_s = min(instance.idle_s, MAX_IDLE_S)
        wait_s = kept_s if announced is None else min(kept_s, max(0.0, announced - 0.5))
        began = time.monotonic()
        if await line.closed_within(wait_s + 0.3 * (announced is None)):
            took_s = time.monotonic() - began
            raise Fault(
                f"an idle connection is closed after {took_s:.1f} s; the gateway keeps them for "
                f"{instance.idle_s:g} s, and a request may meet the close"
            )
    if announced is not None and announced < instance.idle_s:
        return f"open for {wait_s:.1f} s, as Keep-Alive announces; the gateway honours that"
    return f"open for more than {wait_s:.1f} s"


def _announced_s(answer: Answer) -> float | None:
    """Return the time-out an answer's Keep-Alive field announces, None without one."""
    for part in answer.fields.get("keep-alive", "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "timeout" and value.isdecimal():
            return float(value)
    return None


async def head(instance: Instance) -> str:
    """HEAD is answered without a body, and the connection can be used on."""
    async with line_to(instance.place) as line:
        answer = await line.ask("HEAD", instance.health_path)
        if answer.status >= 500:
            raise Fault(f"HEAD {instance.health_path} answers {answer.status}")
        if answer.closes:
            return f"answers {answer.status} and closes"
        try:
            await line.ask("GET", instance.health_path)
        except Lost as exc:
            raise Fault(f"the request after a HEAD on the same connection: {exc}") from exc
    return f"answers {answer.status}, and the connection goes on"


# -- bodies


async def upload(instance: Instance) -> str:
    """A large body is read, or refused with an answer."""
    async with line_to(instance.place) as line:
        try:
            answer = await line.ask("POST", instance.upload_path, body_bytes=UPLOAD_BYTES, pieces=128)
        except Lost as exc:
            raise Fault(f"{UPLOAD_BYTES // 1_000_000} MB to {instance.upload_path}: {exc}") from exc
    if answer.status >= 500:
        raise Fault(f"{UPLOAD_BYTES // 1_000_000} MB to {instance.upload_path} are answered {answer.status}")
    return f"{UPLOAD_BYTES // 1_000_000} MB to {instance.upload_path} are answered {answer.status}"


async def slow_client(instance: Instance) -> str:
    """Clients that send slowly hold up nobody, and are answered."""
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line_to(instance.place)) for _ in range(SLOW_CLIENTS)]
        slow = [asyncio.ensure_future(_trickle(line, instance.upload_path)) for line in lines]
        try:
            await asyncio.sleep(0.2)
            worst_s = await _worst(instance, SLOW_S / 2)
            answers = await asyncio.gather(*slow)
        finally:
            for task in slow:
                task.cancel()
    bad = [answer.status for answer in answers if answer.status >= 500 and answer.status != 501]
    if bad:
        raise Fault(f"a client that sends slowly is answered {bad[0]}")
    return f"others wait {worst_s * 1000:.0f} ms at most while {SLOW_CLIENTS} clients send slowly"


async def _trickle(line: Line, path: str) -> Answer:
    return await line.ask("POST", path, body_bytes=20, pieces=20, pause_s=SLOW_S / 20)


async def _worst(instance: Instance, seconds: float) -> float:
    """Ask again and again on fresh connections. Returns the longest wait; raises Fault if one is too long."""
    worst_s, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            async with asyncio.timeout(BLOCKED_S):
                await once(instance.place, "GET", instance.health_path)
        except TimeoutError:
            raise Fault(
                f"while {SLOW_CLIENTS} clients send slowly, another waits more than {BLOCKED_S:g} s: "
                "slow clients hold up everybody"
            ) from None
        worst_s = max(worst_s, time.monotonic() - began)
        await asyncio.sleep(0.05)
    return worst_s


async def two_versions(instance: Instance) -> str:
    """Two versions at once, on one store, answer."""
    assert instance.second is not None
    places = {"the first": instance.place, "the second": instance.second}
    for _ in range(20):
        asked = [
            once(place, "GET", path)
            for place in places.values()
            for path in (instance.health_path, instance.path)
        ]
        names = [name for name in places for _ in range(2)]
        for name, answer in zip(names, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, BaseException):
                raise Fault(f"side by side, {name} version fails: {answer}")
            if answer.status >= 500:
                raise Fault(f"side by side, {name} version answers {answer.status}")
    return "both answer while both run"


# -- stopping


async def stop(instance: Instance) -> str:
    """Asked to stop, it finishes what runs, refuses or answers what is new, and ends in time."""
    assert instance.stop is not None
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line_to(instance.place)) for _ in range(SLOW_CLIENTS)]
        resting = await stack.enter_async_context(line_to(instance.place))
        await resting.ask("GET", instance.health_path)
        running = [asyncio.ensure_future(_trickle(line, instance.upload_path)) for line in lines]
        try:
            await asyncio.sleep(SLOW_S / 4)
            if any(task.done() and task.exception() is not None for task in running):
                raise Fault("requests were lost before it was asked to stop")
            began = time.monotonic()
            asked = asyncio.ensure_future(_asked(instance.stop))
            after = await _new_ones(instance, began)
            answers = await asyncio.gather(*running, return_exceptions=True)
            await asked
            await _gone(instance, resting, began)
        finally:
            for task in running:
                task.cancel()
    lost = [answer for answer in answers if isinstance(answer, BaseException)]
    if lost:
        raise Fault(f"asked to stop, it cuts {len(lost)} of {len(running)} running requests: {lost[0]}")
    took_s = time.monotonic() - began
    return f"finishes {len(running)} running requests, {after}, and is gone after {took_s:.1f} s"


async def _asked(stop_it: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await stop_it()
    except TimeoutError:
        raise Fault(f"the request to stop has no end within {STOP_S:g} s") from None


async def _new_ones(instance: Instance, began: float) -> str:
    """Send new requests from now on. Raises Fault for one that is neither answered nor refused."""
    answered = 0
    while time.monotonic() - began < SLOW_S:
        try:
            async with asyncio.timeout(FAST_S * 3):
                await once(instance.place, "GET", instance.health_path)
        except Refused:
            return f"answers {answered} new ones and refuses the rest"
        except TimeoutError:
            raise Fault("asked to stop, it accepts new connections and does not answer them") from None
        except Lost as exc:
            if exc.began:
                raise Fault(f"asked to stop, it cuts a new request: {exc}") from exc
            if await _refuses(instance):
                return f"answers {answered} new ones and refuses the rest"
            raise Fault(f"asked to stop, it accepts new connections and drops them: {exc}") from exc
        answered += 1
        await asyncio.sleep(0.02)
    return f"answers {answered} new ones"


async def _refuses(instance: Instance) -> bool:
    """Whether nobody listens any more: what was lost at that moment met the close of the listener."""
    try:
        (await dial(instance.place)).close()
    except Refused:
        return True
    except Lost:
        return False
    return False


async def _gone(instance: Instance, resting: Line, began: float) -> None:
    """Wait until nobody listens and an idle connection is closed. Raises Fault."""
    while not await _refuses(instance):
        if time.monotonic() - began > STOP_S:
            raise Fault(f"asked to stop, it still accepts connections after {STOP_S:g} s")
        await asyncio.sleep(0.05)
    if not await resting.closed_within(max(0.1, STOP_S - (time.monotonic() - began))):
        raise Fault(f"asked to stop, it refuses connections, but does not end within {STOP_S:g} s")
