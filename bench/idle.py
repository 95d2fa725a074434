"""Bytes of memory per idle client connection, beside the peers: each asked once, seconds ago, and stays open.

Counted is the proportional set size of the server's processes; what the kernel keeps for a socket is the same
for all and not in it.
"""

import argparse
import asyncio
from typing import Final

from bench import report
from bench.client import Connection, request_head
from bench.peers import contestants, running, workspace
from bench.procs import ServerProcess, memory_bytes, raise_descriptor_limit

WARM: Final = 200
"""Connections opened and closed before the first look, so that buffers made once are not counted."""
AT_ONCE: Final = 50
SETTLE_S: Final = 3.0
"""After the last request, before memory is looked at."""
OWN_DESCRIPTORS: Final = 100
"""For what is no connection."""


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    # The servers are processes of their own, so this one's limit is for its ends of the connections alone.
    count = min(options.connections, raise_descriptor_limit() - OWN_DESCRIPTORS)
    if count < options.connections:
        print(f"the limit of open files allows {count} connections\n")
    with workspace() as folder, running(contestants(options.only), folder) as servers:
        results = {name: asyncio.run(bytes_each(server, count)) for name, server in servers.items()}
    print(
        report.table(["server", "bytes per idle connection"], [[k, f"{v:.0f}"] for k, v in results.items()])
    )
    report.save("idle", {"connections": count, "bytes_each": results})
    title = f"Bytes per idle client connection, {count} open"
    report.save_bars("idle", title, list(results), {"bytes": list(results.values())})
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--only", default="", help="comma-separated names of the servers to run")
    return parser.parse_args(arguments)


async def bytes_each(server: ServerProcess, count: int) -> float:
    """Return by how much the server's memory grows per connection held open."""
    for connection in await open_used(server.port, WARM):
        connection.close()
    pids = server.pids()
    before = memory_bytes(pids)
    held = await open_used(server.port, count)
    await asyncio.sleep(SETTLE_S)
    grown = memory_bytes(pids) - before
    still_open = sum(1 for connection in held if not connection.closed)
    for connection in held:
        connection.close()
    if still_open < count:
        raise SystemExit(f"{server.name} closed {count - still_open} of {count} connections")
    return grown / count


async def open_used(port: int, count: int) -> list[Connection]:
    """Open connections, a few at a time, and send one request over each."""
    head = request_head("GET", "/")
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> Connection:
        async with gate:
            connection = await Connection.open("127.0.0.1", port)
            await connection.exchange(head)
            return connection

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
    return [task.result() for task in tasks]
