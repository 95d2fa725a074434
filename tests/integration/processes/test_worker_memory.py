"""A worker does not grow, whatever its clients leave unfinished."""

import asyncio
import socket
from contextlib import closing
from pathlib import Path

from tests.effort import effort
from tests.integration.processes.harness import Upstream
from tests.integration.processes.test_worker import Bench, worker

ROUNDS = effort(4, 12)
CONNECTIONS = 4_000
AT_ONCE = 50
GROWTH_BYTES = 16 * 1024 * 1024
LONG_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 29_000
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PATTERNS = (LONG_HEAD, REQUEST, LONG_HEAD, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def come_and_go(address: tuple[str, int], data: bytes) -> None:
    """Connect, send, wait for an answer if one is due, and leave."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, data)
        if data is REQUEST:
            await loop.sock_recv(sock, 4096)


async def run_round(running: Bench) -> None:
    address = running.listener.getsockname()
    numbers = iter(range(CONNECTIONS))

    async def one_after_another() -> None:
        for number in numbers:
            await come_and_go(address, PATTERNS[number % len(PATTERNS)])

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(one_after_another(), name=f"client {number}")


async def test_unfinished_requests_do_not_grow_a_worker(tmp_path: Path) -> None:
    """Guards against circles that wait for a collection: a client without a token grew a worker to 2 GB."""
    with closing(Upstream()) as upstream:
        async with worker(tmp_path) as running:
            await running.accept(upstream)
            await run_round(running)  # what is made once is made by now
            before = resident_bytes(running.process.pid)
            for _ in range(ROUNDS):
                await run_round(running)
            assert resident_bytes(running.process.pid) - before <= GROWTH_BYTES
