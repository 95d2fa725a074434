"""A stream as asyncio's protocols know it, with the behaviour of uvloop's transports."""

import asyncio
import errno
from collections import deque
from typing import Any, Final

from tests.simulation import machine as machines
from tests.simulation.network import WIRE, End, Socket, lookup

HIGH_WATER: Final = 64 * 1024
RECEIVED: Final = 256 * 1024


async def connect(loop: Any, factory: Any, host: Any, port: int) -> Any:
    """Do what `loop.create_connection` does."""
    machine = loop.machine
    await asyncio.sleep(WIRE[0] + (WIRE[1] - WIRE[0]) * machine.chance.random())
    error: OSError | None = None
    for *_, address in lookup(machine, host, port):
        if address in machine.network.silent:
            await asyncio.sleep(130.0)
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        try:
            end = machine.network.dial(address, "10.0.0.1", WIRE)
        except OSError as exc:
            error = exc
            continue
        protocol = factory()
        transport = Transport(loop, Socket.of(end), protocol)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return transport, protocol
    assert error is not None
    raise error


class Transport(asyncio.Transport):
    """A stream as protocols know it."""

    def __init__(self, loop: Any, sock: Socket, protocol: Any) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._end: End = sock._thing()
        self._process = machines.running()
        self._protocol = protocol
        self._buffer: deque[bytes] = deque()
        self._buffered = 0
        self._is_paused = False
        self._is_closing = False
        self._is_lost = False
        self._has_ended = False
        self._wants_eof = False
        self._is_full = False
        self._is_pending = False
        self._end.on_change = self._on_change
        loop.call_soon(self._made)

    def _made(self) -> None:
        self._protocol.connection_made(self)
        self._on_change()

    # -- from the kernel

    def _on_change(self) -> None:
        if not self._is_pending and not self._is_lost:
            self._is_pending = True
            self._loop.enqueue(self._process, self._look)

    def _look(self) -> None:
        self._is_pending = False
        if self._is_lost:
            return
        end = self._end
        if self._buffer:
            self._flush()
        if end.error is not None:
            self._lose(end.error)
        elif self._is_paused or self._is_closing or self._has_ended:
            return
        elif end.inbox:
            data, _ = end.take(RECEIVED)
            self._protocol.data_received(data)
            if end.is_readable:
                self._on_change()
        elif end.has_eof:
            self._has_ended = True
            if not self._protocol.eof_received():
                self.close()

    # -- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._sock
        if name == "peername":
            return None if self._is_lost else self._end.peer_name
        if name == "sockname":
            return self._end.name
        return default

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        if self._end.is_readable:
            self._on_change()

    def write(self, data: Any) -> None:
        if self._is_closing or self._is_lost or not data:
            return
        if self._wants_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        self._buffer.append(bytes(data))
        self._buffered += len(data)
        self._flush()
        if self._buffered > HIGH_WATER and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def _flush(self) -> None:
        end = self._end
        while self._buffer and end.is_writable and end.error is None and not end.is_held:
            data = self._buffer.popleft()
            self._buffered -= len(data)
            end.send(data)
        if self._buffer:
            return
        if self._is_full:
            self._is_full = False
            self._loop.call_soon(self._protocol.resume_writing)
        if self._wants_eof:
            end.shut()
        if self._is_closing and not self._is_lost:
            self._lose(None)

    def write_eof(self) -> None:
        self._wants_eof = True
        self._flush()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return HIGH_WATER // 4, HIGH_WATER

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass

    def is_reading(self) -> bool:
        return not self._is_paused and not self._is_closing

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if not self._buffer:
            self._lose(None)

    def abort(self) -> None:
        self._is_closing = True
        self._buffer.clear()
        self._buffered = 0
        self._lose(None)

    def _lose(self, exc: OSError | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._end.on_change = None
        self._loop.call_soon(self._lost, exc)

    def _lost(self, exc: OSError | None) -> None:
        self._protocol.connection_lost(exc)
        self._sock.close()
