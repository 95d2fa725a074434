"""Every signal a gateway may be sent: it stops in order, does what is asked, or takes no notice."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.harness import World

PATIENCE_S = 60.0
MEANINGLESS = (
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGPIPE,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGSTKFLT,
    signal.SIGWINCH,
    signal.SIGURG,
    signal.SIGXFSZ,
    signal.SIGRTMIN,
    signal.SIGRTMAX,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    log = f'[access_log]\nformat = "json"\npath = "{tmp_path / "access.log"}"\n'
    world = World(tmp_path, workers=1, extra=log)
    world.first = [world.add_sample("v1.0")]
    world.write_config()
    world.start_anywhere()
    yield world
    world.close()


async def read_slowly(world: World) -> bytes:
    """Return the answer to a request that takes two seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"GET /?delay_ms=2000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


async def is_answering(world: World) -> bool:
    stats = await world.api("GET", "services/auth/stats")
    return any(version["inFlight"] for version in stats["versions"])


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM])
async def test_a_stop_by_signal_finishes_what_runs(world: World, number: signal.Signals) -> None:
    """Container images send SIGQUIT; it used to kill control undrained, and leave its workers behind."""
    await world.until(world.serves, "the service to be healthy")
    running = asyncio.ensure_future(read_slowly(world))
    await world.until(lambda: is_answering(world), "the request to be under way")
    world.control.process.send_signal(number)
    assert (await running).startswith(b"HTTP/1.1 200")
    assert await asyncio.to_thread(world.control.process.wait, PATIENCE_S) == 0
    assert not (world.folder / "control.sock").exists()


async def test_signals_that_mean_nothing_change_nothing(world: World) -> None:
    await world.until(world.serves, "the service to be healthy")
    for pid in [world.control.process.pid, *await world.worker_pids()]:
        for number in MEANINGLESS:
            os.kill(pid, number)
    assert await world.serves()
    assert world.control.process.poll() is None
    assert (await world.info())["pid"] == world.control.process.pid


async def test_logs_are_opened_anew_when_asked(world: World) -> None:
    """A rotated file must be closed before anybody compresses it, though no request comes."""
    log = world.folder / "access.log"
    await world.until(world.serves, "the service to be healthy")
    for number in (signal.SIGUSR1, signal.SIGHUP):
        assert await world.serves()
        await world.until(lambda: log.read_text() != "", "the line")
        moved = log.rename(world.folder / f"access.log.{number}")
        world.control.process.send_signal(number)
        await world.until(log.exists, "a new file")
        before = moved.read_text()
        assert await world.serves()
        await world.until(lambda: log.read_text() != "", "the line in the new file")
        assert moved.read_text() == before
