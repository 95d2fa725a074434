"""The same bytes to nginx, HAProxy and the gateway: who refuses what, and what an upstream is asked for."""

import argparse
import asyncio
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, NamedTuple

from bench import report
from bench.differential_cases import CASES, END, Case
from bench.peers import Start, contestants, subfolder, workspace

AT_ONCE: Final = 16
SILENCE_S: Final = 1.0
"""Without a byte for so long, a server waits for more of the message."""
_NAME: Final = re.compile(rb"c(\d{3})x-(main|end|in)")


class Reading(NamedTuple):
    """What one server made of one case."""

    status: int
    """Of its first answer; 0: none."""
    closed: bool
    """It ended the connection."""
    asked: tuple[str, ...]
    """What it asked the upstream for, in order: `main`, `end`, `in`."""

    @property
    def is_accepted(self) -> bool:
        return bool(self.asked) or 200 <= self.status < 400

    @property
    def is_refused(self) -> bool:
        return not self.asked and (self.status >= 400 or (not self.status and self.closed))

    def __str__(self) -> str:
        word = str(self.status or ("closed" if self.closed else "waits"))
        return f"{word} [{' '.join(self.asked)}]" if self.asked else word


Readings = dict[str, dict[str, Reading]]
"""Case name -> server name -> reading."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    with workspace() as folder:
        starts = contestants(options.only or "gateway,haproxy,nginx")
        readings = asyncio.run(compare(starts, folder))
    rows = [
        [case.name, *map(str, readings[case.name].values()), case.why]
        for case in CASES
        if options.all or differs(readings[case.name])
    ]
    print(report.table(["case", *starts, "why we differ"], rows))
    wrong = [*smuggled(readings), *laxer(readings)]
    for line in wrong:
        print(f"WRONG: {line}")
    print(f"\n{len(CASES)} cases, {len(rows)} shown, {len(wrong)} wrong")
    return 1 if wrong else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench differential", description=__doc__)
    parser.add_argument("--all", action="store_true", help="show cases on which all agree too")
    parser.add_argument("--only", default="", help="comma-separated names of the servers to ask")
    return parser.parse_args(arguments)


def differs(readings: Mapping[str, Reading]) -> bool:
    """Tell whether some server takes what another refuses, or asks for other things."""
    return len({(each.is_accepted, each.asked) for each in readings.values()}) > 1


def smuggled(readings: Readings) -> list[str]:
    """Return the cases in which the gateway asked the upstream for what was not asked of it."""
    found = []
    for case in CASES:
        asked = readings[case.name]["gateway"].asked
        if asked != case.asks[: len(asked)]:
            found.append(f"{case.name}: the upstream was asked for {' '.join(asked)}")
    return found


def laxer(readings: Readings) -> list[str]:
    """Return the cases, not explained in the table, that the gateway takes and all its peers refuse."""
    found = []
    for case in CASES:
        peers = dict(readings[case.name])
        ours = peers.pop("gateway")
        if ours.is_accepted and peers and all(each.is_refused for each in peers.values()) and not case.why:
            found.append(f"{case.name}: taken by the gateway alone")
    return found


async def compare(starts: Mapping[str, Start], folder: Path) -> Readings:
    """Run every case against every server, each in front of an upstream of its own."""
    readings: Readings = {case.name: {} for case in CASES}
    async with AsyncExitStack() as stack:
        for name, start in starts.items():
            upstream = await stack.enter_async_context(Recorder())
            place = subfolder(folder, name)
            server = await asyncio.to_thread(start, place, upstream.port)
            stack.callback(server.stop)
            for number, reading in enumerate(await ask_all(server.port, upstream)):
                readings[CASES[number].name][name] = reading
    return readings


async def ask_all(port: int, upstream: "Recorder") -> list[Reading]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, case: Case) -> Reading:
        async with gate:
            status, closed = await ask(port, (case.data + END).replace(b"^", b"c%03dx" % number))
        return Reading(status, closed, tuple(upstream.asked.get(number, ())))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number, case)) for number, case in enumerate(CASES)]
    return [task.result() for task in tasks]


async def ask(port: int, data: bytes) -> tuple[int, bool]:
    """Send bytes and read until the end, or silence. Returns the first final status and whether it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer, closed = b"", False
    try:
        writer.write(data)
        while True:
            async with asyncio.timeout(SILENCE_S):
                piece = await reader.read(65_536)
            if not piece:
                closed = True
                break
            answer += piece
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    finally:
        writer.transport.abort()
    found = re.search(rb"HTTP/1\.[01] ([2-9]\d\d)", answer)
    return (int(found[1]) if found else 0), closed


class Recorder:
    """An upstream that answers everything, and notes what it was asked for by which case."""

    def __init__(self) -> None:
        self.asked: dict[int, list[str]] = {}
        self.port = 0
        self._serving: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def __aenter__(self) -> "Recorder":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=262_144)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._serving.values():
            writer.transport.abort()
        while self._serving:
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving[asyncio.current_task()] = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._read_body(reader, head.lower())
                self._note(head)  # not before: a request that is never complete is none
                body = b"" if head.startswith(b"HEAD ") else b"ok"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass  # the proxy gave the connection up
        finally:
            self._serving.pop(asyncio.current_task())
            writer.close()

    def _note(self, head: bytes) -> None:
        if found := _NAME.search(head):
            self.asked.setdefault(int(found[1]), []).append(found[2].decode())

    async def _read_body(self, reader: asyncio.StreamReader, head: bytes) -> None:
        """Read the body as a service would that trusts its proxy: a coding counts more than a length."""
        if re.search(rb"\r\ntransfer-encoding:[^\r]*chunked", head):
            while size := int((await reader.readuntil(b"\n")).partition(b";")[0], 16):
                await reader.readexactly(size + 2)
            while (await reader.readuntil(b"\n")).strip():
                pass
        elif found := re.search(rb"\r\ncontent-length:[ \t]*(\d+)", head):
            await reader.readexactly(int(found[1]))
