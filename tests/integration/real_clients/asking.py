"""What is asked of every service by every client, and each client's way to ask it."""

import asyncio
import base64
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
from yarl import URL

HERE: Final = Path(__file__).parent
PATIENCE_S: Final = 120.0
LONG: Final = bytes(range(256)) * 4_096
BOUNDARY: Final = re.compile(r"(?<=boundary=)\d{20}")
PLAIN: Final = {"Accept-Encoding": "identity"}
HOP_BY_HOP: Final = frozenset({"date", "connection", "keep-alive", "transfer-encoding", "x-request-id"})
"""What may differ between two answers to one request: the time, and what is of the connection alone."""


class Ask(NamedTuple):
    """One request."""

    method: str
    path: str
    fields: dict[str, str] = {}
    body: bytes | None = None


class Got(NamedTuple):
    """What a client says came back."""

    status: int
    fields: list[tuple[str, str]]
    """Lower-case names, sorted."""
    body: bytes


JSON: Final = {"Content-Type": "application/json"}
ASKS: Final = {
    "file": Ask("GET", "/nginx/file.txt"),
    "file, head only": Ask("HEAD", "/nginx/file.txt"),
    "file, compressed": Ask("GET", "/nginx/long.txt", {"Accept-Encoding": "gzip"}),
    "part of a file": Ask("GET", "/nginx/long.txt", PLAIN | {"Range": "bytes=100-299"}),
    "parts of a file": Ask("GET", "/nginx/long.txt", PLAIN | {"Range": "bytes=0-9,20-29"}),
    "part beyond the end": Ask("GET", "/nginx/file.txt", {"Range": "bytes=9999-"}),
    "file not changed": Ask("GET", "/nginx/file.txt", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    "folder without its slash": Ask("GET", "/nginx/folder"),
    "no such file": Ask("GET", "/nginx/none"),
    "method nginx does not take": Ask("PUT", "/nginx/file.txt", {}, b"x"),
    "echo": Ask("GET", "/flask/echo", {"Accept-Language": "de", "X-Empty": ""}),
    "escapes and queries": Ask("GET", "/flask/echo/a%20b/%C3%BC/%7Ex?q=Z%C3%BCrich&q=%26&e=&plus=a+b"),
    "nested url": Ask("GET", "/node/fetch/https://example.org/x%2Fy//z/?u=http://a/b?c"),
    "long query": Ask("GET", "/node/echo?" + "k=v&" * 900),
    "many fields": Ask("GET", "/node/echo", {f"X-Field-{number}": "v" * 50 for number in range(50)}),
    "cookies asked": Ask("GET", "/node/echo", {"Cookie": "a=1; b=2"}),
    "credentials": Ask("GET", "/flask/echo", {"Authorization": "Basic eDp5"}),
    "post": Ask("POST", "/flask/echo", JSON, b'{"a": "\xc3\xbc"}'),
    "post of nothing": Ask("POST", "/node/echo", {}, b""),
    "long post": Ask("POST", "/node/echo", {"Content-Type": "application/octet-stream"}, LONG),
    "long put": Ask("PUT", "/flask/echo", {"Content-Type": "application/octet-stream"}, LONG),
    "patch": Ask("PATCH", "/node/echo", JSON, b"[]"),
    "delete": Ask("DELETE", "/flask/empty"),
    "options": Ask("OPTIONS", "/node/echo"),
    "webdav": Ask("PROPFIND", "/flask/echo", {"Depth": "1", "Content-Type": "text/xml"}, b"<a/>"),
    "redirect": Ask("GET", "/flask/redirect"),
    "cookies set": Ask("GET", "/flask/cookies"),
    "chunks": Ask("GET", "/flask/stream"),
    "chunks with a trailer": Ask("GET", "/node/stream"),
    "upgrade wanted": Ask("GET", "/node/upgrade"),
}

Client = Callable[[str, Sequence[Ask]], list[Got]]
"""(scheme, host and port) and requests -> answers, over one connection where the client can."""


def got(status: int, fields: Sequence[tuple[str, str]], body: bytes) -> Got:
    kept = sorted((name.lower(), value) for name, value in fields if name.lower() not in HOP_BY_HOP)
    return Got(status, kept, body)


def curl(base: str, asks: Sequence[Ask]) -> list[Got]:
    return [_curl(base, ask) for ask in asks]


def _curl(base: str, ask: Ask) -> Got:
    with tempfile.TemporaryDirectory() as folder:
        head, body = Path(folder, "head"), Path(folder, "body")
        command = ["curl", "-sS", "--path-as-is", "--http1.1", "-D", str(head), "-o", str(body)]
        command += ["-I"] if ask.method == "HEAD" else ["-X", ask.method]
        for name, value in ask.fields.items():
            command += ["-H", f"{name}: {value}" if value else f"{name};"]
        if ask.body is not None:
            command += ["--data-binary", "@-"]  # beyond 1 MB it asks for 100 Continue first
        subprocess.run([*command, base + ask.path], input=ask.body, check=True, timeout=PATIENCE_S)
        # Interim answers come first; trailers are noted behind the last head.
        heads = head.read_text("latin-1").rstrip("\r\n")
        last, _, trailers = heads.rpartition("HTTP/1.1 ")[2].partition("\r\n\r\n")
        status, *lines = last.split("\r\n")
        pairs = [line.partition(": ")[::2] for line in (*lines, *trailers.split("\r\n")) if line]
        content = body.read_bytes() if body.exists() and ask.method != "HEAD" else b""
        return got(int(status[:3]), pairs, content)


def with_requests(base: str, asks: Sequence[Ask]) -> list[Got]:
    def one(session: requests.Session, ask: Ask) -> Got:
        answer = session.request(
            ask.method,
            base + ask.path,
            headers=ask.fields,
            data=ask.body,
            allow_redirects=False,
            timeout=PATIENCE_S,
            stream=True,
        )
        body = answer.raw.read(decode_content=False)
        return got(answer.status_code, list(answer.raw.headers.items()), body)

    with requests.Session() as session:
        session.trust_env = False
        return [one(session, ask) for ask in asks]


def with_httpx(base: str, asks: Sequence[Ask]) -> list[Got]:
    def one(client: httpx.Client, ask: Ask) -> Got:
        with client.stream(ask.method, base + ask.path, headers=ask.fields, content=ask.body) as answer:
            return got(answer.status_code, answer.headers.multi_items(), b"".join(answer.iter_raw()))

    with httpx.Client(timeout=PATIENCE_S, trust_env=False) as client:
        return [one(client, ask) for ask in asks]


def with_aiohttp(base: str, asks: Sequence[Ask]) -> list[Got]:
    async def one(session: aiohttp.ClientSession, ask: Ask) -> Got:
        url = URL(base + ask.path, encoded=True)
        async with session.request(
            ask.method, url, headers=ask.fields, data=ask.body, allow_redirects=False
        ) as answer:
            return got(answer.status, list(answer.headers.items()), await answer.read())

    async def every() -> list[Got]:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            return [await one(session, ask) for ask in asks]

    return asyncio.run(every())


def with_aiohttp_in_chunks(base: str, asks: Sequence[Ask]) -> list[Got]:
    """Send bodies in pieces, of a length that is not known before."""

    async def pieces(body: bytes) -> Any:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    async def every() -> list[Got]:
        answers = []
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            for ask in asks:
                url = URL(base + ask.path, encoded=True)
                data = pieces(ask.body) if ask.body else None
                async with session.request(
                    ask.method, url, headers=ask.fields, data=data, allow_redirects=False
                ) as answer:
                    answers.append(got(answer.status, list(answer.headers.items()), await answer.read()))
        return answers

    return asyncio.run(every())


def node(kind: str) -> Client:
    def client(base: str, asks: Sequence[Ask]) -> list[Got]:
        wanted = [
            {
                "method": ask.method,
                "url": base + ask.path,
                "fields": ask.fields,
                "body": None if ask.body is None else base64.b64encode(ask.body).decode(),
            }
            for ask in asks
        ]
        done = subprocess.run(
            ["node", str(HERE / "node_client.js"), kind],
            input=json.dumps(wanted).encode(),
            stdout=subprocess.PIPE,
            check=True,
            timeout=PATIENCE_S,
        )
        answers = json.loads(done.stdout)
        return [
            got(each["status"], [tuple(pair) for pair in each["fields"]], base64.b64decode(each["body"]))
            for each in answers
        ]

    return client


def _java(version: str, base: str, asks: Sequence[Ask]) -> list[Got]:
    lines = []
    for ask in asks:
        fields = "\n".join(f"{name}: {value}" for name, value in ask.fields.items())
        encoded = base64.b64encode(fields.encode()).decode()
        body = "-" if ask.body is None else base64.b64encode(ask.body).decode()
        lines.append("\t".join((ask.method, base + ask.path, encoded, body)))
    done = subprocess.run(
        ["java", str(HERE / "Client.java"), version],
        input="".join(line + "\n" for line in lines).encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE_S,
    )
    answers = []
    for line in done.stdout.decode().splitlines():
        status, fields, body = line.split("\t")
        pairs = [each.partition(": ")[::2] for each in base64.b64decode(fields).decode().splitlines()]
        answers.append(got(int(status), pairs, base64.b64decode(body)))
    return answers


def java(version: str) -> Client:
    """version: `HTTP_2` offers h2c with each request, as the JDK's client does unless it is told not to."""
    return partial(_java, version)


CLIENTS: Final[dict[str, Client]] = {
    "curl": curl,
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
    "aiohttp in chunks": with_aiohttp_in_chunks,
    "node's fetch": node("fetch"),
    "node's http": node("http"),
    "java": java("HTTP_1_1"),
    "java, offering h2c": java("HTTP_2"),
}
DIRECT: Final[dict[str, Client]] = {"java, offering h2c": java("HTTP_1_1")}
"""Who asks without the gateway, if another: node's own server takes an offer of h2c for any upgrade."""
PROGRAMS: Final = {
    "curl": "curl",
    "node's fetch": "node",
    "node's http": "node",
    "java": "java",
    "java, offering h2c": "java",
}
"""What a client needs to be installed."""


def without_address(answer: Got, base: str) -> Got:
    """Return an answer without what differs each time: the server's address, and nginx's boundaries."""
    address = urlsplit(base).netloc
    fields = [(name, value.replace(address, "ADDRESS")) for name, value in answer.fields]
    fields = [(name, BOUNDARY.sub("BOUNDARY", value)) for name, value in fields]
    body = answer.body.replace(address.encode(), b"ADDRESS")
    if len(body) != len(answer.body):  # its length follows the address's
        fields = [(name, value if name != "content-length" else "?") for name, value in fields]
    return Got(answer.status, fields, re.sub(rb"--\d{20}", b"--BOUNDARY", body))
