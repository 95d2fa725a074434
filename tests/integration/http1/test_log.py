"""The access log, written by real exchanges."""

import json
from pathlib import Path

from gateway.core.settings.limits import Limits, Timeouts
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
    assert (good["method"], good["path"], good["status"], good["bytes_out"]) == ("GET", "/a", 200, 2)
    assert (good["service"], good["version"], good["user_agent"]) == ("s", "v1", "test")
    assert good["endpoint"] == upstream.url
    assert (bad["method"], bad["status"]) == ("POST", 502)
    assert bad["flags"] in (["connect", "retried"], ["reset"])


async def test_head_that_is_refused_leaves_a_line_with_what_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    settings = ProxySettings(
        access_log_format="json",
        access_log_path=str(path),
        timeouts=Timeouts(client_header=100),
        limits=Limits(body_bytes=5, uri_bytes=20),
    )
    refused = {
        b"GET /no-host HTTP/1.1\r\n\r\n": ("GET", "/no-host", 400, "bad_request"),
        b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n": ("CONNECT", "h:1", 501, "not_implemented_by_us"),
        b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n": ("POST", "/b", 413, "body_too_large"),
        b"GET /" + b"x" * 30 + b" HTTP/1.1\r\n": ("GET", "/" + "x" * 19, 414, "uri_too_long"),
        b"GET /slow HTTP/1.1\r\nX": ("GET", "/slow", 408, "too_slow"),
        b"\x16\x03\x01\r\n\r\n": ("", "", 400, "bad_request"),
    }
    async with proxying(Upstream(), proxy=settings) as proxy:
        for request in refused:
            await proxy.ask_to_the_end(GET + request)
        await eventually(lambda: path.exists() and path.read_bytes().count(b"\n") == 2 * len(refused))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    seen = [(each["method"], each["path"], each["status"], *each["flags"]) for each in lines[1::2]]
    assert seen == list(refused.values())
    assert len(lines) == 2 * len(refused), "a connection that lingers is no request"
    assert all(each["client"] == "127.0.0.1" and not each["host"] for each in lines[1::2])


async def test_line_names_the_client_a_trusted_proxy_names_and_the_proxy(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    settings = ProxySettings(
        access_log_format="json", access_log_path=str(path), trusted_proxies=(("127.0.0.0/8",),)
    )
    async with proxying(Upstream(), proxy=settings) as proxy:
        await proxy.ask(GET[:-2] + b"X-Forwarded-For: 6.6.6.6, 203.0.113.5:4001\r\n\r\n")
        await eventually(lambda: path.exists() and path.read_bytes().count(b"\n") == 1)
    line = json.loads(path.read_text())
    assert (line["client"], line["peer"]) == ("203.0.113.5", "127.0.0.1")
