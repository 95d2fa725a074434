"""The connections to an endpoint: whom they may lead to."""

import asyncio

import pytest

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.errors import ConfigError, ConnectFailed
from gateway.http1.client import UpstreamConnection
from gateway.link.snapshot import ProxySettings
from gateway.worker import pool as pool_module
from gateway.worker.pool import Pool


class Waiting:
    """Waits for a connection, and keeps what came instead."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.outcome.set_result(connection)

    def on_connect_failed(self, error: ConnectFailed) -> None:
        self.outcome.set_result(error)


async def test_name_of_a_fallback_is_judged_by_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has looked it up before: the check that versions get from the resolver is made here."""
    judged: list[tuple[str, str]] = []

    def refuse(url: str, address: str) -> None:
        judged.append((url, address))
        raise ConfigError("", "leads to a link-local address")

    monkeypatch.setattr(pool_module, "check_target", refuse)
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
        waiting = Waiting()
        await Pool(Endpoint("fallback|auth", url=url), ServiceSettings(), ProxySettings()).connect(waiting)
        outcome = await waiting.outcome
        assert isinstance(outcome, ConnectFailed) and "link-local" in str(outcome)
        assert judged == [(url, "127.0.0.1")]
        assert await seen == b"", "the connection is closed before anything is asked"
