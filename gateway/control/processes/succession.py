"""The new control's side of an upgrade: sockets first, everything else once the old control has committed.

The order of words, and what a failure means at each, stands in `upgrade`.
"""

import asyncio
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

import msgspec

from gateway.control.processes.conversation import (
    ENVIRONMENT,
    Commit,
    Conversation,
    Failed,
    FromOld,
    Offer,
    Ready,
    Taken,
    decode_old,
)
from gateway.control.processes.lock import StoreLock
from gateway.errors import LinkError
from gateway.link.fds import close_all
from gateway.link.messages import ListenerName

GONE_S: Final = 5.0
"""How long a process that has closed its end may take to be gone, and its lock with it."""


class Handed(msgspec.Struct, frozen=True):
    """What came with Commit."""

    lock: StoreLock
    link: socket.socket
    """The listening socket of the link."""
    admin: dict[str, socket.socket]
    """Admin listening sockets by address."""


class Succession:
    """The new control's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._predecessor = os.getppid()
        self._conversation: Conversation[FromOld] | None = None
        self.schema = 0
        """Of the store, as the old control's release knows it; 0: nobody has said."""

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Succession | None":
        """Return the conversation that an old control began by starting us; None if none did.

        Raises LinkError for a descriptor that is no socket.
        """
        fd = environ.pop(ENVIRONMENT, None)
        if fd is None:
            return None
        try:
            os.set_inheritable(int(fd), False)
            return cls(socket.socket(fileno=int(fd)))
        except (ValueError, OSError) as exc:
            raise LinkError(f"{ENVIRONMENT}={fd} names no socket: is it set by hand?") from exc

    async def listeners(self) -> list[tuple[ListenerName, int]]:
        """Return the old control's listening sockets: names and descriptors, ours to keep or close.

        Raises LinkError if it is gone.
        """
        self._conversation = Conversation(self._sock, decode_old)
        found: list[tuple[ListenerName, int]] = []
        more = True
        while more:
            word, fds = await self._conversation.receive()
            if not isinstance(word, Offer):
                raise LinkError(f"{type(word).__name__} came where Offer was due")
            found.extend(zip(word.listeners, fds, strict=True))
            self.schema, more = word.schema, word.more
        return found

    async def commit(self, release: str = "") -> Handed | None:
        """Say that we are ready, and wait for all the old control holds. None: it died; take the lock."""
        conversation = self._conversation
        assert conversation is not None, "ask for the listeners first"
        conversation.send(Ready(os.getpid(), release))
        try:
            word, fds = await conversation.receive()
        except LinkError:
            await self._predecessor_gone()
            return None
        if not isinstance(word, Commit):
            close_all(fds)
            raise LinkError(f"{type(word).__name__} came where Commit was due")
        if len(fds) != 2 + len(word.admin):
            close_all(fds)
            raise LinkError(f"Commit came with {len(fds)} descriptors")
        lock, link, *admin = fds
        return Handed(
            lock=StoreLock.inherit(lock),
            link=socket.socket(fileno=link),
            admin={address: socket.socket(fileno=fd) for address, fd in zip(word.admin, admin, strict=True)},
        )

    async def _predecessor_gone(self) -> None:
        """Wait until the process that started us is gone: only then is the lock free."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                while os.getppid() == self._predecessor:  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(0.01)

    def taken(self, epoch: int) -> None:
        """The epoch is raised and our workers accept: we are in charge, and nothing can fail any more."""
        self._say(Taken(epoch))

    def failed(self, reason: str) -> None:
        """We give up; the old control goes on, and says why."""
        self._say(Failed(reason))

    def _say(self, word: Taken | Failed) -> None:
        if self._conversation is None:
            with suppress(RuntimeError):  # no loop runs yet: our exit says the same
                self._conversation = Conversation(self._sock, decode_old)
        if self._conversation is not None:
            self._conversation.send(word)
            self._conversation.close()
