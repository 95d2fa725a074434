"""What a real client gets through the gateway is what it gets without it, but for the fields we add."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import async_playwright
from websockets.asyncio.client import connect

from tests.integration.real_clients.asking import ASKS, CLIENTS, DIRECT, PROGRAMS, without_address
from tests.integration.real_clients.conftest import Site

CHROMIUM: Final = Path("/usr/bin/chromium")
PATIENCE_S: Final = 60.0


def require(program: str | None) -> None:
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", CLIENTS)
def test_client_gets_the_same_through_the_gateway(site: Site, name: str) -> None:
    require(PROGRAMS.get(name))
    client = CLIENTS[name]
    through = client(site.through, list(ASKS.values()))
    direct = {}
    ask_directly = DIRECT.get(name, client)
    for base in site.direct.values():
        names = [each for each, ask in ASKS.items() if site.direct_of(ask.path) == base]
        for each, answer in zip(names, ask_directly(base, [ASKS[each] for each in names]), strict=True):
            direct[each] = without_address(answer, base)
    for each, answer in zip(ASKS, through, strict=True):
        assert without_address(answer, site.through) == direct[each], each
    assert {each: answer.status for each, answer in direct.items()} == dict.fromkeys(ASKS, 200) | ODD


ODD: Final = {
    "part of a file": 206,
    "parts of a file": 206,
    "part beyond the end": 416,
    "file not changed": 304,
    "folder without its slash": 301,
    "no such file": 404,
    "method nginx does not take": 405,
    "delete": 204,
    "redirect": 303,
    "upgrade wanted": 426,
}
"""Asked for without the gateway: guards against a comparison of nothing with nothing."""


def test_upload_in_a_form_arrives_whole(site: Site, tmp_path: Path) -> None:
    require("curl")
    file = tmp_path / "upload.bin"
    file.write_bytes(bytes(range(256)) * 20_000)
    answers = [
        subprocess.run(
            ["curl", "-sS", "-F", f"file=@{file}", "-F", "name=Zürich", f"{base}/flask/form"],
            capture_output=True,
            check=True,
            timeout=PATIENCE_S,
        ).stdout
        for base in (site.direct["flask"], site.through)
    ]
    assert answers[0] == answers[1]
    assert b"file" in answers[0]


def test_raw_utf8_in_a_url_is_forwarded(site: Site) -> None:
    """curl sends a query as it is typed."""
    require("curl")
    command = ["curl", "-sS", "-g", f"{site.through}/node/Zürich?q=Zürich"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout
    assert b'?q=Z%C3%BCrich"' in answer


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("path", ["/nginx/file.txt", "/node/page"])
def test_ab_counts_no_failure(site: Site, path: str, *, keep_alive: bool) -> None:
    """It speaks HTTP/1.0, with `Connection: keep-alive` or without."""
    require("ab")
    found = []
    for base in (site.direct_of(path), site.through):
        command = ["ab", "-n", "300", "-c", "4", *(["-k"] if keep_alive else []), base + path]
        text = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S, text=True).stdout
        assert "Non-2xx" not in text
        assert re.search(r"Failed requests: +0\n", text)
        assert re.search(r"Complete requests: +300\n", text)
        found.append(re.search(r"Document Length: +(\d+) bytes", text))
    assert found[0] and found[1] and found[0][1] == found[1][1]


@pytest.mark.parametrize("path", ["/nginx/long.txt", "/node/echo", "/flask/echo"])
def test_h2load_counts_no_failure(site: Site, path: str) -> None:
    require("h2load")
    command = ["h2load", "--h1", "-n", "300", "-c", "4", "-m", "1", site.through + path]
    text = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S, text=True).stdout
    assert "300 succeeded, 0 failed, 0 errored" in text
    assert "300 2xx, 0 3xx, 0 4xx, 0 5xx" in text


async def test_upgrade_with_a_body_is_granted_by_node(site: Site) -> None:
    """As `docker exec` asks: POST, Content-Length, Upgrade: a protocol of its own."""
    host, port = site.through.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(PATIENCE_S):
        writer.write(
            b"POST /node/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(2) == b"{}", "node gives an upgrade's body to the new protocol"
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()


# WebSockets and a browser


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_websocket_carries_what_it_carries_without_the_gateway(
    site: Site, compression: str | None
) -> None:
    messages = ["text Zürich", b"\0\xff" * 50_000, "", "x" * 300_000]
    found = []
    async with asyncio.timeout(PATIENCE_S):
        for base in (site.direct["ws"], site.through):
            url = base.replace("http", "ws", 1) + "/ws/room?a=b%20c"
            async with connect(url, max_size=None, compression=compression, proxy=None) as peer:
                answers = [await peer.recv()]
                for message in messages:
                    await peer.send(message)
                    answers.append(await peer.recv())
                await (await peer.ping())
                extensions = [type(each).__name__ for each in peer.protocol.extensions]
            found.append((answers, extensions, peer.close_code))
    assert found[0] == found[1]
    assert found[0][0] == ["asked for /ws/room?a=b%20c", *messages]


PAGE: Final = """async () => {
  const said = {};
  const read = async (answer) => [answer.status, answer.redirected, await answer.text()];
  const post = async (url, body) => (await read(await fetch(url, {method: 'POST', body})))[2];
  said.echo = JSON.parse((await read(await fetch('/flask/echo?a=b%20c')))[2]);
  said.post = JSON.parse(await post('/flask/echo', 'x'.repeat(300000)));
  const form = new FormData();
  form.append('name', 'Zürich');
  form.append('file', new Blob(['abc']), 'a.txt');
  said.form = await post('/flask/form', form);
  said.redirected = (await read(await fetch('/flask/redirect'))).slice(0, 2);
  said.many = await Promise.all([...Array(30).keys()].map(async (n) =>
    (await read(await fetch('/node/echo?' + n)))[0]));
  await fetch('/flask/cookies');
  said.cookies = document.cookie;
  const answer = await fetch('/flask/stream');
  let size = 0;
  for (const reader = answer.body.getReader();;) {
    const {done, value} = await reader.read();
    if (done) break;
    size += value.length;
  }
  said.streamed = size;
  said.file = (await read(await fetch('/nginx/long.txt')))[2].length;
  said.socket = await new Promise((resolve, reject) => {
    const heard = [], socket = new WebSocket(`ws://${location.host}/ws/page`);
    socket.onmessage = (event) => {
      heard.push(event.data);
      if (heard.length === 1) socket.send('from a page');
      else socket.close(1000);
    };
    socket.onclose = (event) => resolve([...heard, event.code]);
    socket.onerror = reject;
  });
  return said;
}"""


@pytest.mark.timeout(180)
async def test_page_in_chromium_works_behind_the_gateway(site: Site) -> None:
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox"], timeout=60_000
        )
        try:
            tab = await browser.new_page()
            await tab.goto(f"{site.through}/node/page")
            assert await tab.title() == "page"
            said: dict[str, Any] = await tab.evaluate(PAGE)
        finally:
            await browser.close()
    assert said["echo"]["url"] == f"{site.through}/flask/echo?a=b%20c"
    assert said["echo"]["client"] == "127.0.0.1"
    assert said["post"]["size"] == 300_000
    assert "Z\\u00fcrich" in said["form"]
    assert said["redirected"] == [200, True]
    assert said["many"] == [200] * 30
    assert said["cookies"] == 'b="two words"'
    assert said["streamed"] == sum(len(f"piece {number}\n") * 200 for number in range(20))
    assert said["file"] == 27 * 5_000
    assert said["socket"] == ["asked for /ws/page", "from a page", 1000]
