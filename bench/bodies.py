"""Rate of large bodies down and up, and what a slow reader costs in memory, beside HAProxy and nginx.

The upstream and the client are of this package: every server moves the same bytes between the same ends.
"""

import argparse
import socket
import time
from collections.abc import Callable
from typing import Final

from bench import report
from bench.peers import contestants, interleaved, running, workspace
from bench.procs import ServerProcess, memory_bytes

PIECE: Final = bytes(1_048_576)
MB: Final = 1_000_000
SLOW_BYTES_PER_S: Final = 1 * MB


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    starts = contestants(options.only)
    results: dict[str, dict[str, list[float]]] = {
        name: {"down": [], "up": [], "growth": []} for name in starts
    }
    with workspace() as folder, running(starts, folder, own_upstream=True) as servers:
        for name, server in interleaved(servers, options.rounds):
            results[name]["down"].append(rate(download, server.port, options.megabytes))
            results[name]["up"].append(rate(upload, server.port, options.megabytes))
        for name, server in servers.items():
            growth = slow_reader(server, options.megabytes, options.slow_seconds)
            results[name]["growth"].append(growth / MB)
    medians = {
        name: {key: report.median(values) for key, values in one.items()} for name, one in results.items()
    }
    print(report.table(*rows(medians)))
    report.save("bodies", {"options": vars(options), "medians": medians, "rounds": results})
    bars = {key: [row[key] for row in medians.values()] for key in ("down", "up")}
    report.save_bars("bodies", "MB/s of large bodies (more is better)", list(medians), bars)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench bodies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=1_000, help="of one body")
    parser.add_argument("--only", default="", help="comma-separated names of the servers to run")
    parser.add_argument("--slow-seconds", type=int, default=15, help="how long the slow reader reads")
    return parser.parse_args(arguments)


def rate(move: Callable[[int, int], None], port: int, megabytes: int) -> float:
    """Return the MB/s at which `move` gets a body of `megabytes` through the server on `port`."""
    start = time.monotonic()
    move(port, megabytes * MB)
    return megabytes / (time.monotonic() - start)


def download(port: int, size: int) -> None:
    """GET a body of `size` bytes to its end. Raises ConnectionError when it ends early."""
    buffer = bytearray(len(PIECE))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        left = size - begin_download(sock, size)
        while left:
            got = sock.recv_into(buffer)
            if not got:
                raise ConnectionError(f"{left} bytes are missing")
            left -= got


def begin_download(sock: socket.socket, size: int) -> int:
    """Ask for `size` bytes and read the head; returns how many bytes of the body came with it."""
    sock.sendall(f"GET /bytes/{size} HTTP/1.1\r\nHost: bench.test\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65_536) or refuse("no answer")
    head, _, body = received.partition(b"\r\n\r\n")
    return len(body) if head.split()[1] == b"200" else len(refuse(head.decode("latin-1")))


def upload(port: int, size: int) -> None:
    """POST a body of `size` bytes and wait for the answer. Raises ConnectionError for any other than 200."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(f"POST /up HTTP/1.1\r\nHost: bench.test\r\nContent-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, len(PIECE)):
            sock.sendall(PIECE[: min(len(PIECE), size - start)])
        answer = sock.recv(65_536)
    if answer.split()[1:2] != [b"200"]:
        refuse(answer[:200].decode("latin-1"))


def refuse(reason: str) -> bytes:
    raise ConnectionError(reason)


def slow_reader(server: ServerProcess, megabytes: int, seconds: int) -> int:
    """Read a large body at 1 MB/s for a while; returns by how many bytes the server's memory grew at most."""
    pids = server.pids()
    before = most = memory_bytes(pids)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", server.port))
        begin_download(sock, megabytes * MB)
        start, read = time.monotonic(), 0
        while time.monotonic() - start < seconds:
            read += len(sock.recv(65_536))
            time.sleep(max(0.0, start + read / SLOW_BYTES_PER_S - time.monotonic()))
            most = max(most, memory_bytes(pids))
    return most - before


def rows(medians: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table."""
    head = [
        "server",
        "down MB/s",
        "up MB/s",
        "down × HAProxy",
        "up × HAProxy",
        "memory growth MB, reader at 1 MB/s",
    ]
    peer = medians.get("haproxy")
    body = []
    for name, row in medians.items():
        ratios = [f"{row[key] / peer[key]:.2f}" if peer else "-" for key in ("down", "up")]
        body.append([name, f"{row['down']:.0f}", f"{row['up']:.0f}", *ratios, f"{row['growth']:.1f}"])
    return head, body
