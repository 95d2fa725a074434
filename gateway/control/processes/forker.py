"""Control's end of one process that forks workers: orders out, answers in, none ever waited for."""

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Protocol

from gateway.control.processes.template_process import (
    PACKET_BYTES,
    Answer,
    Kill,
    Spare,
    decode_answer,
    encode,
)
from gateway.errors import LinkError
from gateway.link.fds import close_all, recv_with_fds, send_with_fds
from gateway.link.spawn import Spawn


class ForkerOwner(Protocol):
    """Who hears the answers. Called from the loop, never after `on_forker_lost`."""

    def on_answer(self, forker: "Forker", answer: Answer, fds: list[int]) -> None:
        """An answer came; its descriptors are the owner's to close."""

    def on_forker_lost(self, forker: "Forker") -> None:
        """The process is gone."""


class Forker:
    """The process at the other end of a SOCK_SEQPACKET pair, driven by the running loop from now on."""

    def __init__(self, sock: socket.socket, owner: ForkerOwner) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._unsent: list[tuple[bytes, list[int]]] = []
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def send(self, order: Spawn | Spare | Kill, fds: Sequence[int] = ()) -> None:
        """Send an order with copies of `fds`; dropped once it is lost. Raises OSError without descriptors."""
        if self._sock.fileno() < 0:
            return
        self._unsent.append((encode(order), _copies(fds)))
        self._flush()

    def close(self) -> None:
        """Let the process end; its workers go on."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._unsent:
            close_all(fds)
        self._unsent.clear()

    def _flush(self) -> None:
        while self._unsent:
            packet, fds = self._unsent[0]
            try:
                send_with_fds(self._sock, packet, fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                break  # it is gone: what it said last is still to be read, then comes the end
            close_all(fds)
            del self._unsent[0]
        self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        try:
            packet, fds = recv_with_fds(self._sock, PACKET_BYTES)
        except BlockingIOError:
            return
        except LinkError:
            return  # a pidfd there was no place for: what came with it is lost, and its worker given up
        except OSError:
            packet, fds = b"", []
        if packet:
            self._owner.on_answer(self, decode_answer(packet), fds)
            return
        close_all(fds)
        self.close()
        self._owner.on_forker_lost(self)


def _copies(fds: Sequence[int]) -> list[int]:
    """Return duplicates of `fds`, all or none. Raises OSError."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError:
        close_all(copies)
        raise
    return copies
