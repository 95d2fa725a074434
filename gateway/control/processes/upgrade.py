"""The gateway's own upgrade: a new control starts beside the old one, and takes everything over at one point.

1. Old (`Upgrade.run`): starts the new one from the code now on disk, and sends Offer: copies of all listening
   sockets.
2. New (`Succession`): loads, forks a template, starts idle workers, and says Ready within 30 s.
3. Old: stops its loops and admin writes, commits its last tick, accepts no more links, and sends Commit: the
   lock, the link's and the admin listener.
4. New: raises the store's epoch, goes on with all that is under way, lets its workers accept, and says Taken:
   it is in charge.
5. Old: names the new one to systemd, and ends. Its workers come to the new one by HELLO, and drain.

Until it hears Taken the old one can go on: it still holds all it gave copies of. If the new one fails before,
the old one makes sure of its end and takes everything back, the epoch too if that was raised. A new one whose
predecessor dies before Commit (`commit` returns None) takes the lock itself, as after any crash.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from gateway.control.processes.conversation import (
    ENVIRONMENT,
    Commit,
    Conversation,
    Failed,
    FromNew,
    Offer,
    Ready,
    Taken,
    decode_new,
)
from gateway.control.processes.listeners import Held, names_of
from gateway.control.processes.lock import StoreLock
from gateway.errors import GatewayError, LinkError
from gateway.link.fds import MAX_FDS, close_all
from gateway.log import get_logger

log = get_logger(component="upgrade")

READY_S: Final = 30.0
TAKE_S: Final = 20.0
"""From Commit to Taken: some store transactions. The gateway takes no admin write meanwhile."""
MEANT_FOR_US: Final = ("LISTEN_", "WATCHDOG_PID")
"""Variables of systemd that hold for one process. Without the pid the watchdog is its successor's, too."""
CONTAINER_INITS: Final = frozenset({"tini", "docker-init", "dumb-init", "catatonit"})
"""Processes 1 that end, and their container with them, once the one process they started has."""


class UpgradeFailed(GatewayError):
    """The new control did not come to be; this one goes on."""

    status = 503
    title = "Upgrade Failed"


class Upgrade:
    """The old control's side."""

    is_running: ClassVar[bool] = False
    """Whether one is under way in this process."""

    def __init__(
        self,
        *,
        lock: StoreLock,
        held: Callable[[], Sequence[Held]],
        link: socket.socket,
        admin: Mapping[str, socket.socket],
        quiesce: Callable[[], Awaitable[None]],
        resume: Callable[[], Awaitable[None]],
        is_wanted: Callable[[], bool] = lambda: True,
        schema: int = 0,
        command: Sequence[str] = (),
    ) -> None:
        """Everything a successor needs.

        held: the listening sockets. quiesce: stop the loops, admin writes and taking links, commit the last
        tick. resume: undo that, also where a new one has raised the epoch and died. is_wanted: asked when the
        new one is ready: a gateway that is to stop meanwhile must not live on in its successor. schema: the
        store's, as this release knows it. command: what starts a new control; empty: what started this one.
        """
        self._lock = lock
        self._held = held
        self._link = link
        self._admin = dict(admin)
        self._quiesce = quiesce
        self._resume = resume
        self._is_wanted = is_wanted
        self._schema = schema
        self._command = tuple(command) or (sys.executable, *sys.orig_argv[1:])

    async def run(self) -> int:
        """Put a new control in charge; returns its pid, and the caller ends. Raises UpgradeFailed, and
        goes on.
        """
        if _is_containers_own():
            raise UpgradeFailed("this container would end with this process: start a new container instead")
        if Upgrade.is_running:
            raise UpgradeFailed("an upgrade is already under way")
        Upgrade.is_running = True
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        conversation: Conversation[FromNew] = Conversation(ours, decode_new)
        try:
            process = self._start(theirs)
            return await self._lead(conversation, process)
        finally:
            conversation.close()
            Upgrade.is_running = False

    def _start(self, theirs: socket.socket) -> "subprocess.Popen[bytes]":
        environ = {name: value for name, value in os.environ.items() if not name.startswith(MEANT_FOR_US)}
        environ[ENVIRONMENT] = str(theirs.fileno())
        try:
            return subprocess.Popen(self._command, env=environ, pass_fds=[theirs.fileno()])  # noqa: S603 - ourselves
        except OSError as exc:
            raise UpgradeFailed(f"{self._command[0]} does not start: {exc.strerror}") from exc
        finally:
            theirs.close()

    async def _lead(self, conversation: Conversation[FromNew], process: "subprocess.Popen[bytes]") -> int:
        try:
            self._offer(conversation)
            await self._expect(Ready, conversation, process, READY_S)
            if not self._is_wanted():
                raise UpgradeFailed("the gateway is to stop")
        except BaseException:
            await _end(process)
            raise
        log.info("successor_ready", pid=process.pid)
        try:
            await self._quiesce()
            sockets = [self._lock.fileno(), self._link.fileno(), *(s.fileno() for s in self._admin.values())]
            conversation.send(Commit(tuple(self._admin)), sockets)
            await self._expect(Taken, conversation, process, TAKE_S)
        except BaseException:
            # Only its end makes sure that it does nothing more: it may have raised the epoch already.
            process.kill()
            await _end(process)
            self._lock.sign()
            await self._resume()
            raise
        process.returncode = 0  # it outlives us: nobody is to wait for it
        return process.pid

    def _offer(self, conversation: Conversation[FromNew]) -> None:
        held = self._held()
        for start in range(0, max(len(held), 1), MAX_FDS):
            some = held[start : start + MAX_FDS]
            more = start + MAX_FDS < len(held)
            conversation.send(Offer(names_of(some), more, self._schema), [one.sock.fileno() for one in some])

    async def _expect(
        self,
        kind: type[Ready | Taken],
        conversation: Conversation[FromNew],
        process: "subprocess.Popen[bytes]",
        timeout_s: float,
    ) -> None:
        """Wait for a word of `kind`. Raises UpgradeFailed with the reason it did not come."""
        try:
            async with asyncio.timeout(timeout_s):
                word, fds = await conversation.receive()
        except TimeoutError:
            raise UpgradeFailed(
                f"the new control is not {kind.__name__.lower()} after {timeout_s:g} s"
            ) from None
        except LinkError:
            code = await _end(process)
            raise UpgradeFailed(f"the new control ended with {code} before it was in charge") from None
        close_all(fds)
        if isinstance(word, Failed):
            raise UpgradeFailed(word.reason)
        if not isinstance(word, kind):
            raise UpgradeFailed(f"the new control said {type(word).__name__}, not {kind.__name__}")


def _is_containers_own() -> bool:
    """Whether the container ends with this process: it is process 1, or what a tiny process 1 started."""
    if os.getpid() == 1:
        return True
    try:
        init = Path("/proc/1/comm").read_text("utf-8").strip()
    except OSError:
        return False
    return os.getppid() == 1 and init in CONTAINER_INITS


async def _end(process: "subprocess.Popen[bytes]") -> int:
    """Give the process a moment to end, else kill it; returns its exit code."""
    try:
        return await asyncio.to_thread(process.wait, 2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return await asyncio.to_thread(process.wait)
