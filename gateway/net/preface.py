"""What comes before the protocol proper: a PROXY header, and the first byte of a TLS handshake.

Exactly the header's bytes are taken from the socket (it is looked at with MSG_PEEK first), so what follows, a
TLS handshake or a request, is read by the real protocol as if nothing had been there.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from gateway.errors import BadRequest
from gateway.net.proxy_protocol import V2_BYTES, HeaderReader

HANDSHAKE_BYTE: Final = 0x16
"""How every TLS connection begins (RFC 8446 §5.1)."""
LINGER_S: Final = 2.0
"""How long a client that spoke plain HTTP to a TLS port may take to read why it is refused."""
DISCARDED: Final = 65_536
"""Bytes read at once of what nobody wants."""


class Preface:
    """A connection whose first bytes are being read. Ends with `on_ready` or `on_failed`, once."""

    def __init__(
        self,
        conn: socket.socket,
        host: str,
        *,
        has_header: bool,
        wants_tls: bool,
        timeout_s: float,
        plain_answer: Callable[[], bytes],
        on_ready: Callable[["Preface"], None],
        on_failed: Callable[["Preface"], None],
    ) -> None:
        """conn: not blocking. has_header: a PROXY header comes first. wants_tls: nothing but TLS may follow.

        plain_answer: makes what is sent to who speaks plain text where TLS is wanted.
        """
        self.conn = conn
        self.host = host
        """The client's address: as the header has it, once that is read."""
        self._header = HeaderReader() if has_header else None
        self._wants_tls = wants_tls
        self._plain_answer = plain_answer
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._is_refused = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(timeout_s, self.close)
        self._loop.add_reader(conn.fileno(), self._on_readable)

    def close(self) -> None:
        """Give up on it."""
        self._detach()
        self._on_failed(self)

    def _detach(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self.conn.fileno())

    def _on_readable(self) -> None:
        try:
            if self._is_refused:
                self._discard()
            elif self._header is not None:
                self._read_header(self._header)
            else:
                self._look()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, BadRequest):
            self.close()

    def _read_header(self, header: HeaderReader) -> None:
        seen = self.conn.recv(V2_BYTES, socket.MSG_PEEK)
        self.conn.recv(header.feed(seen))
        if not header.done:
            if not seen:
                self.close()
            return
        self._header = None
        if header.source is not None:
            self.host = header.source.host
        if self._wants_tls:
            self._look()
        else:
            self._be_ready()

    def _look(self) -> None:
        """See whether a TLS handshake begins here."""
        seen = self.conn.recv(1, socket.MSG_PEEK)
        if not seen:
            self.close()
        elif seen[0] == HANDSHAKE_BYTE:
            self._be_ready()
        else:
            self._refuse()

    def _be_ready(self) -> None:
        self._detach()
        self._on_ready(self)

    def _refuse(self) -> None:
        """Say why, and wait a little for it to be read: unread bytes would reset the connection."""
        self._is_refused = True
        self._timer.cancel()
        self._timer = self._loop.call_later(LINGER_S, self.close)
        self.conn.send(self._plain_answer())
        self.conn.shutdown(socket.SHUT_WR)
        self._discard()

    def _discard(self) -> None:
        if not self.conn.recv(DISCARDED):
            self.close()
