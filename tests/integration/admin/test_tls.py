"""The admin listener by TLS: who is let in, a certificate that is changed, and the command line at it."""

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.client import AdminClient
from gateway.cli.commands import run
from gateway.cli.exits import Unreachable
from gateway.net.tls import Certificate, CertificateFiles, ServerTls
from tests.conftest import Authority
from tests.integration.admin.gateway_process import DEADLINE_S, running
from tests.unit.admin.bench import Bench


def read(pair: tuple[str, str]) -> Certificate:
    return Certificate.read(CertificateFiles(*pair))


@asynccontextmanager
async def listening(tls: ServerTls) -> AsyncIterator[tuple[int, str]]:
    """Serve the API with `tls`; gives the port and a token."""
    bench = Bench()
    token = bench.token("viewer")
    bench.actions.answers["gateway.get_freeze"] = {"frozen": False}
    sock = socket.create_server(("127.0.0.1", 0))
    await bench.server.start(sock, tls)
    try:
        yield sock.getsockname()[1], token
    finally:
        await bench.server.close(1.0)


async def asked(port: int, token: str, authority: Authority, own: tuple[str, str] | None = None) -> Any:
    """Return the answer of a call by https, or how it failed."""

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.ca))
        if own is not None:
            made.load_cert_chain(*own)
        return made

    api = AdminClient(f"https://localhost:{port}", token, tls=context)
    try:
        return await asyncio.to_thread(api.get, "freeze")
    except Unreachable as exc:
        return exc


async def test_a_client_certificate_is_wanted_where_its_ca_is_named(authority: Authority) -> None:
    """Besides the token, not instead of it."""
    own = authority.issue("ann", client=True)
    tls = ServerTls([read(authority.issue("localhost"))], authority.ca.read_bytes())
    async with listening(tls) as (port, token):
        assert await asked(port, token, authority, own) == {"frozen": False}
        assert isinstance(await asked(port, token, authority), Unreachable)
        with pytest.raises(Exception, match="not known"):
            await asked(port, "gw_wrong", authority, own)


async def test_whoever_speaks_plain_text_is_told_so(authority: Authority) -> None:
    async with listening(ServerTls([read(authority.issue("localhost"))])) as (port, token):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /livez HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"https://" in body
        assert await asked(port, token, authority) == {"frozen": False}


async def test_a_gateway_takes_a_new_certificate_at_a_reload(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the command line on its machine trusts the one that is configured."""
    certificate, key = authority.issue("first", "localhost")
    monkeypatch.setenv("GATEWAY__ADMIN__TLS__CERTIFICATE", certificate)
    monkeypatch.setenv("GATEWAY__ADMIN__TLS__KEY", key)
    async with running(tmp_path) as gateway:
        port = int(gateway.admin.rpartition(":")[2])
        healthcheck = ("healthcheck", "--config", str(tmp_path / "gateway.toml"))
        assert await asyncio.to_thread(run, healthcheck) == 0
        before = await asyncio.to_thread(names, port, authority)
        newer, newer_key = authority.issue("second", "localhost")
        Path(newer_key).replace(key)
        Path(newer).replace(certificate)
        assert await asyncio.to_thread(names, port, authority) == before == ["first", "localhost"]
        os.kill(gateway.pid, signal.SIGHUP)
        async with asyncio.timeout(DEADLINE_S):
            while await asyncio.to_thread(names, port, authority) != ["second", "localhost"]:
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(run, healthcheck) == 0


def names(port: int, authority: Authority) -> list[str]:
    """Return the names of the certificate served there."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        shown: Any = tls.getpeercert()
        return [value for _, value in shown["subjectAltName"]]
