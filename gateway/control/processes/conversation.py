"""What two controls say to each other while the new one takes over, and a channel to await it on.

The order they come in stands in `upgrade`.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from gateway.errors import LinkError
from gateway.link.channel import Channel
from gateway.link.messages import ListenerName
from gateway.log import get_logger

log = get_logger(component="upgrade")

ENVIRONMENT: Final = "GATEWAY_UPGRADE_FD"
"""Names the new control's end of the conversation."""


class Offer(msgspec.Struct, frozen=True, tag="offer", tag_field="t"):
    """Copies of listening sockets, which travel with it. `more`: another offer follows."""

    listeners: tuple[ListenerName, ...]
    more: bool = False
    schema: int = 0
    """Of the store, as the old control's release knows it; 0: that does not say."""


class Ready(msgspec.Struct, frozen=True, tag="ready", tag_field="t"):
    """The new control has loaded, and its workers have a table."""

    pid: int
    release: str = ""


class Commit(msgspec.Struct, frozen=True, tag="commit", tag_field="t"):
    """The old control writes no more. The lock, the link's listener and the admin listeners travel with
    it.
    """

    admin: tuple[str, ...] = ()
    """Address of each admin listener, in order."""


class Taken(msgspec.Struct, frozen=True, tag="taken", tag_field="t"):
    """The new control has raised the epoch, and its workers accept."""

    epoch: int


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="t"):
    """The new control gives up."""

    reason: str


FromOld = Offer | Commit
FromNew = Ready | Taken | Failed
decode_old: Final[Callable[[bytes], FromOld]] = msgspec.msgpack.Decoder(FromOld).decode
decode_new: Final[Callable[[bytes], FromNew]] = msgspec.msgpack.Decoder(FromNew).decode

Word = TypeVar("Word")


class Conversation(Generic[Word]):
    """A channel that is read by awaiting."""

    def __init__(self, sock: socket.socket, decode: Callable[[bytes], Word]) -> None:
        self._received: asyncio.Queue[tuple[Word, list[int]] | None] = asyncio.Queue()
        self._channel: Channel[Word] = Channel(sock, decode, self)

    def send(self, word: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Send one word."""
        self._channel.send(word, fds)

    async def receive(self) -> tuple[Word, list[int]]:
        """Return the next word and its descriptors. Raises LinkError once the other end is gone."""
        received = await self._received.get()
        if received is None:
            self._received.put_nowait(None)
            raise LinkError("the other control is gone")
        return received

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def on_message(self, message: Word, fds: list[int]) -> None:
        """Keep it for `receive`."""
        self._received.put_nowait((message, fds))

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        """The other release says something we do not know: that is for it to notice, by our silence."""
        log.warning("upgrade_word_unknown", reason=reason)

    def on_lost(self, reason: str) -> None:
        """The other control is gone."""
        self._received.put_nowait(None)
