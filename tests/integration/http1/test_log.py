"""The access log, written by real exchanges."""

import json
from pathlib import Path

from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import GET, Upstream, eventually, proxying


async def test_every_exchange_leaves_one_line_also_a_refused_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    upstream = Upstream()
    settings = ProxySettings(access_log_format="json", access_log_path=str(path))
    async with proxying(upstream, proxy=settings) as proxy:
        await proxy.ask(GET[:-2] + b"User-Agent: test\r\n\r\n")
        await upstream.stop()
        await proxy.ask(b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        await eventually(lambda: path.exists() and path.read_bytes().count(b"\n") == 2)
    good, bad = (json.loads(line) for line in path.read_text().splitlines())
    assert (good["method"], good["target"], good["status"], good["bytes"]) == ("GET", "/a", 200, 2)
    assert (good["service"], good["version"], good["userAgent"]) == ("s", "v1", "test")
    assert good["endpoint"] == upstream.url
    assert (bad["method"], bad["status"]) == ("POST", 502)
    assert bad["outcome"] in ("connect", "reset")
