"""The connections to an endpoint: whom they may lead to."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.errors import ConnectFailed
from gateway.http1.client import UpstreamConnection
from gateway.link.snapshot import ProxySettings, TargetLimits
from gateway.worker.pool import Pool


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as found:
        yield found


class Waiting:
    """Waits for a connection, and keeps what came instead."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.outcome.set_result(connection)

    def on_connect_failed(self, error: ConnectFailed) -> None:
        self.outcome.set_result(error)


async def asked(url: str, limits: TargetLimits) -> object:
    """Return what became of a connection to a url: itself, or the error."""
    waiting = Waiting()
    pool = Pool(Endpoint("fallback|auth", url=url), ServiceSettings(), ProxySettings(targets=limits))
    await pool.connect(waiting)
    outcome = await waiting.outcome
    if isinstance(outcome, UpstreamConnection):
        outcome.close()
    return outcome


class Hearing:
    """A server that keeps what it hears, a connection each, once it has ended."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        self.heard.put_nowait(data)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(TargetLimits(allowed=("10.0.0.0/8",)), "outside the allowed"), (TargetLimits(), "gateway itself")],
)
async def test_name_of_a_fallback_is_judged_by_where_it_leads(
    limits: TargetLimits, reason: str, events: list[Any]
) -> None:
    """Nobody has looked it up before: the check that versions get from the resolver is made here.

    Guards against the admin listener as a fallback, by a name.
    """
    hearing = Hearing()
    async with await asyncio.start_server(hearing.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        own = () if limits.allowed else (("0.0.0.0", port),)
        outcome = await asked(f"http://localhost:{port}", replace(limits, own=own))
        assert isinstance(outcome, ConnectFailed) and "as it is configured" in str(outcome)
        assert reason in str(events)
        assert await hearing.heard.get() == b"", "the connection is closed before anything is asked"
        other = await asked(f"http://localhost:{port}", TargetLimits(own=(("127.0.0.1", port + 1),)))
        assert isinstance(other, UpstreamConnection)
        await hearing.heard.get()


async def test_socket_file_is_judged_again_by_what_it_leads_to(tmp_path: Path, events: list[Any]) -> None:
    """Guards against a link that is bent to control's own socket once the version is registered."""
    own, other, bent = tmp_path / "control.sock", tmp_path / "app.sock", tmp_path / "bent.sock"
    limits = TargetLimits(own_sockets=(str(own),))
    hearing, harmless = Hearing(), Hearing()
    async with (
        await asyncio.start_unix_server(hearing.answer, own),
        await asyncio.start_unix_server(harmless.answer, other),
    ):
        bent.symlink_to(other)
        assert isinstance(await asked(f"unix:{bent}", limits), UpstreamConnection)
        await harmless.heard.get()
        bent.unlink()
        bent.symlink_to(own)
        for path in (bent, own):
            outcome = await asked(f"unix:{path}", limits)
            assert isinstance(outcome, ConnectFailed)
            assert str(tmp_path) not in str(outcome), "clients are shown no path"
            assert "give the machine away" in str(events)
            assert await hearing.heard.get() == b"", "the connection is closed before anything is asked"
