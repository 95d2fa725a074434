"""Workers of another control, dead or upgraded: they bring their sockets, and drain once ours serve."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Final

from gateway.control.processes.listeners import Held, Listeners
from gateway.control.processes.peer import Peer
from gateway.link.fds import close_all
from gateway.link.messages import Hello
from gateway.log import get_logger

log = get_logger(component="supervisor")

GATHER_S: Final = 2.0
QUIET_S: Final = 0.3
"""Orphans try the link every 100 ms: after three tries without a new one, all have come."""


class Orphans:
    """Those whose link stands."""

    def __init__(self, listeners: Listeners, drain_s: float) -> None:
        self._listeners = listeners
        self._drain_s = drain_s
        self._peers: dict[str, Peer] = {}
        """By incarnation."""
        self._brought: dict[str, list[Held]] = {}
        """By incarnation: sockets that it accepts on, or is to."""
        self._came = asyncio.Event()

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, incarnation: str) -> bool:
        """Whether the link of such a worker stands."""
        return incarnation in self._peers

    async def gather(self, *, expected: bool) -> None:
        """Wait for the workers of a dead control to bring their sockets, while an address lacks one.

        expected: the last control did not end properly, so orphans are likely even where no address is taken.
        """
        if not expected and not self._listeners.taken():
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GATHER_S
        while loop.time() < deadline:
            came = await self._another()
            if not came and not self._listeners.taken():
                return

    async def _another(self) -> bool:
        """Wait a little for one more; False if none came."""
        self._came.clear()
        try:
            async with asyncio.timeout(QUIET_S):
                await self._came.wait()
        except TimeoutError:
            return False
        return True

    def adopt(self, peer: Peer, hello: Hello, fds: list[int]) -> None:
        """Take an orphan in, and the sockets it brings."""
        held = [self._listeners.adopt(name, fd) for name, fd in zip(hello.listeners, fds, strict=False)]
        self._brought.setdefault(hello.incarnation, []).extend(each for each in held if each is not None)
        close_all(fds[len(hello.listeners) :])
        if self._peers.get(hello.incarnation) is not peer:
            log.info(
                "orphan_adopted", slot=hello.slot, pid=peer.pid, sockets=len(fds), draining=hello.draining
            )
            self._came.set()
        self._peers[hello.incarnation] = peer

    def drain(self) -> None:
        """Let those that do not drain yet do so: ours serve."""
        for peer in self._peers.values():
            if not peer.draining:
                peer.drain(self._drain_s)

    def lost(self, peer: Peer, reason: str) -> None:
        """Forget one whose link ended."""
        if self._peers.pop(peer.incarnation, None) is not None:
            log.info("orphan_gone", slot=peer.slot, pid=peer.pid, reason=reason)
            self._hand_on(self._brought.pop(peer.incarnation, []))

    def _hand_on(self, held: list[Held]) -> None:
        """Let another orphan accept on the sockets of one that is gone, if ours do not serve yet.

        A start that waits for its store may take long, and so would whoever has connected there.
        """
        heir = next((each for each in self._peers.values() if each.accepting and not each.draining), None)
        if heir is not None and held:
            heir.lend(held)
            self._brought.setdefault(heir.incarnation, []).extend(held)

    def kill(self) -> None:
        """End them now. Their links stand, so their pids are theirs."""
        for peer in self._peers.values():
            with suppress(ProcessLookupError):
                os.kill(peer.pid, signal.SIGKILL)

    def clear(self) -> None:
        """Leave them to another control."""
        self._peers.clear()
        self._brought.clear()
