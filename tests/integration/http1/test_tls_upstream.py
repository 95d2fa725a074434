"""https upstreams: verified by default, with a CA of one's own, and a name of one's own."""

import asyncio
import ssl
from pathlib import Path

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings, UpstreamTlsSettings
from gateway.link.snapshot import ProxySettings
from gateway.worker.plane import Plane
from tests.conftest import Authority
from tests.integration.http1.proxying import GET, Upstream, proxying, service, version


async def ask(authority: Authority, settings: UpstreamTlsSettings, name: str = "127.0.0.1") -> bytes:
    """Return the answer of an https upstream whose certificate is for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(name))
    upstream = Upstream()
    server = await asyncio.start_server(upstream._accept, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with proxying() as proxy:
        proxy.apply(service(version("v1", url), tls=settings, retry=False))
        answer = await proxy.ask(GET)
    await upstream.stop()
    server.close()
    return answer


async def test_upstream_of_a_trusted_ca_is_used(authority: Authority) -> None:
    assert (await ask(authority, UpstreamTlsSettings(ca=str(authority.ca)))).endswith(b"ok")


async def test_upstream_that_nobody_vouches_for_is_a_502(authority: Authority) -> None:
    assert (await ask(authority, UpstreamTlsSettings())).startswith(b"HTTP/1.1 502 ")


async def test_certificate_for_another_name_is_a_502(authority: Authority) -> None:
    settings = UpstreamTlsSettings(ca=str(authority.ca))
    assert (await ask(authority, settings, "other.test")).startswith(b"HTTP/1.1 502 ")


async def test_name_to_verify_may_be_set(authority: Authority) -> None:
    settings = UpstreamTlsSettings(ca=str(authority.ca), server_name="other.test")
    assert (await ask(authority, settings, "other.test")).endswith(b"ok")


async def test_verification_may_be_switched_off(authority: Authority) -> None:
    assert (await ask(authority, UpstreamTlsSettings(verify=False), "other.test")).endswith(b"ok")


async def test_files_are_read_again_when_told_and_one_that_cannot_be_used_changes_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.ca.read_bytes())
    endpoint = Endpoint("e", url="https://127.0.0.1:1")
    settings = ServiceSettings(tls=UpstreamTlsSettings(ca=str(ca)))
    plane = Plane()
    pool = plane.pools.make(endpoint, settings, ProxySettings())
    first = pool._tls_context()
    plane.pools.reload_tls()
    second = pool._tls_context()
    assert second is not first
    ca.write_text("nothing of use")
    plane.pools.reload_tls()
    assert pool._tls_context() is second
