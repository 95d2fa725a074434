"""A small HTTP/1.1 upstream for measurements: `python -m bench.upstream PORT`.

`/bytes/N` answers N bytes, `/echo` the head it received, anything else 97 bytes once the request's body has
been read to its end. It trusts its peers: only proxies under measurement speak to it, with Content-Length.
"""

import asyncio
import re
import sys
from typing import Final, cast

import uvloop

ANSWER: Final = b"x" * 97
CHUNK: Final = bytes(262_144)
READ_BYTES: Final = 262_144


class Upstream(asyncio.BufferedProtocol):
    """One connection: a request at a time, bodies counted and dropped."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.head = b""
        self.request = b""
        self.body_left = 0
        self.to_send = 0
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.body_left >= nbytes:
            self.body_left -= nbytes
            if not self.body_left:
                self.answer()
            return
        self.head += bytes(self.buffer[:nbytes])
        while not self.body_left and (end := self.head.find(b"\r\n\r\n")) >= 0:
            self.request, rest = self.head[: end + 4], self.head[end + 4 :]
            length = body_length(self.request)
            self.head, self.body_left = rest[length:], max(0, length - len(rest))
            if not self.body_left:
                self.answer()

    def answer(self) -> None:
        target = self.request.split(b" ", 2)[1]
        if target.startswith(b"/bytes/"):
            self.to_send = int(target.rpartition(b"/")[2])
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.to_send)
            self.send_more()
            return
        body = self.request if target == b"/echo" else ANSWER
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def send_more(self) -> None:
        while self.to_send and self.writable:
            piece = min(self.to_send, len(CHUNK))
            self.to_send -= piece
            self.transport.write(CHUNK if piece == len(CHUNK) else CHUNK[:piece])

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.send_more()


def body_length(head: bytes) -> int:
    """Return the Content-Length a head announces; 0 without one."""
    found = re.search(rb"\r\ncontent-length:[ \t]*(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


async def serve(port: int) -> None:
    """Answer on 127.0.0.1:`port` until the process ends."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
