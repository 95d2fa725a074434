"""The gateway's own upgrade: a new control starts beside the old one, and takes everything over at one
point.

Old (`Upgrade.run`)                              New (`Succession`) start the new one from the code now on
disk Offer: copies of all listening sockets      →  load, fork a template, start idle workers ←  Ready,
within 30 s stop the loops and admin writes, commit the last tick, accept no more links Commit: lock, link
and admin sockets        →  raise the store's epoch ←  Taken: the new one is in charge tell systemd, end
workers accept; the old ones come by HELLO, and drain

Until the epoch is raised the old one can go on as if nothing had been: it still holds all it gave copies
of. A new one whose predecessor dies before Commit (`commit` returns None) takes the lock itself, as after
any crash.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from gateway.control.processes.listeners import Held, names_of
from gateway.control.processes.lock import StoreLock
from gateway.errors import GatewayError, LinkError
from gateway.link.channel import Channel
from gateway.link.fds import MAX_FDS, close_all
from gateway.link.messages import ListenerName
from gateway.log import get_logger

log = get_logger(component="handover")

ENVIRONMENT: Final = "GATEWAY_UPGRADE_FD"
READY_S: Final = 30.0
TAKE_S: Final = 10.0
"""From Commit to Taken: one store transaction. The gateway takes no admin write meanwhile."""


GONE_S: Final = 5.0
"""How long a process that has closed its end may take to be gone, and its lock with it."""
MEANT_FOR_US: Final = ("LISTEN_", "WATCHDOG_PID")
"""Variables of systemd that hold for one process. Without the pid the watchdog is its successor's, too."""
CONTAINER_INITS: Final = frozenset({"tini", "docker-init", "dumb-init", "catatonit"})
"""Processes 1 that end, and their container with them, once the one process they started has."""


class UpgradeFailed(GatewayError):
    """The new control did not come to be; this one goes on."""

    status = 503
    title = "Upgrade Failed"


class Offer(msgspec.Struct, frozen=True, tag="offer", tag_field="t"):
    """Copies of listening sockets, which travel with it. `more`: another offer follows."""

    listeners: tuple[ListenerName, ...]
    more: bool = False


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
    """The new control has raised the epoch."""

    epoch: int


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="t"):
    """The new control gives up."""

    reason: str


FromOld = Offer | Commit
FromNew = Ready | Taken | Failed
_decode_old: Final[Callable[[bytes], FromOld]] = msgspec.msgpack.Decoder(FromOld).decode
_decode_new: Final[Callable[[bytes], FromNew]] = msgspec.msgpack.Decoder(FromNew).decode

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

    def receive_nowait(self) -> tuple[Word, list[int]] | None:
        """Return a word that has already come; None if none has."""
        return None if self._received.empty() else self._received.get_nowait()

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def on_message(self, message: Word, fds: list[int]) -> None:
        """Keep it for `receive`."""
        self._received.put_nowait((message, fds))

    def on_undecodable(self, payload: bytes, reason: str) -> None:
        """The other release says something we do not know: that is for it to notice, by our silence."""
        log.warning("handover_word_unknown", reason=reason)

    def on_lost(self, reason: str) -> None:
        """The other control is gone."""
        self._received.put_nowait(None)


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
        is_in_charge: Callable[[], Awaitable[bool]],
        is_wanted: Callable[[], bool] = lambda: True,
        command: Sequence[str] = (),
    ) -> None:
        """Everything a successor needs.

        held: the listening sockets. quiesce: stop the loops, admin writes and taking links, commit the
        last tick. resume: undo that. is_in_charge: whether the store's epoch is still ours. is_wanted:
        asked when the new one is ready: a gateway told to stop meanwhile must not live on in its
        successor. command: what starts a new control; empty: what started this one.
        """
        self._lock = lock
        self._held = held
        self._link = link
        self._admin = dict(admin)
        self._quiesce = quiesce
        self._resume = resume
        self._is_in_charge = is_in_charge
        self._is_wanted = is_wanted
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
        conversation: Conversation[FromNew] = Conversation(ours, _decode_new)
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
                raise UpgradeFailed("the gateway was told to stop meanwhile")
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
            if await self._is_in_charge():
                # Only its end makes sure that it does not raise the epoch after we looked.
                process.kill()
                await _end(process)
            if await self._is_in_charge():
                self._lock.sign()
                await self._resume()
                raise
            log.warning("successor_took_charge_unsaid", pid=process.pid)
        process.returncode = 0  # it outlives us: nobody is to wait for it
        return process.pid

    def _offer(self, conversation: Conversation[FromNew]) -> None:
        held = self._held()
        for start in range(0, max(len(held), 1), MAX_FDS):
            some = held[start : start + MAX_FDS]
            more = start + MAX_FDS < len(held)
            conversation.send(Offer(names_of(some), more), [one.sock.fileno() for one in some])

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


async def _receive(conversation: Conversation[FromNew], timeout_s: float) -> tuple[FromNew, list[int]]:
    """Return the next word. Raises LinkError, and TimeoutError unless it came while this process was
    asleep.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await conversation.receive()
    except TimeoutError:
        received = conversation.receive_nowait()
        if received is None:
            raise
        return received


async def _end(process: "subprocess.Popen[bytes]") -> int:
    """Give the process a moment to end, else kill it; returns its exit code."""
    try:
        return await asyncio.to_thread(process.wait, 2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return await asyncio.to_thread(process.wait)


class Handed(msgspec.Struct, frozen=True):
    """What the old control gave at Commit."""

    lock: Any
    """A `StoreLock`."""
    link: Any
    """The listening socket of the link."""
    admin: dict[str, Any]
    """Admin listening sockets by address."""


class Succession:
    """The new control's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._predecessor = os.getppid()
        self._conversation: Conversation[FromOld] | None = None

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Succession | None":
        """Return the conversation that an old control began by starting us; None if none did."""
        fd = environ.pop(ENVIRONMENT, None)
        if fd is None:
            return None
        os.set_inheritable(int(fd), False)
        return cls(socket.socket(fileno=int(fd)))

    async def listeners(self) -> list[tuple[ListenerName, int]]:
        """Return the old control's listening sockets: names and descriptors, ours to keep or close.

        Raises LinkError if it is gone.
        """
        self._conversation = Conversation(self._sock, _decode_old)
        found: list[tuple[ListenerName, int]] = []
        more = True
        while more:
            word, fds = await self._conversation.receive()
            if not isinstance(word, Offer):
                raise LinkError(f"{type(word).__name__} came where Offer was due")
            found.extend(zip(word.listeners, fds, strict=True))
            more = word.more
        return found

    async def commit(self, release: str = "") -> Handed | None:
        """Say that we are ready, and wait until the old control lets go. None: it died; take the lock
        ourselves.
        """
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
        lock, link, *admin = fds
        return Handed(
            lock=StoreLock.inherit(lock),
            link=socket.socket(fileno=link),
            admin={address: socket.socket(fileno=fd) for address, fd in zip(word.admin, admin, strict=True)},
        )

    async def _predecessor_gone(self) -> None:
        """Wait until the process that started us is gone: only then has it let go of the lock."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                while os.getppid() == self._predecessor:  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(0.01)

    def taken(self, epoch: int) -> None:
        """The epoch is raised: we are in charge."""
        self._say(Taken(epoch))

    def failed(self, reason: str) -> None:
        """We give up; the old control goes on, and says why."""
        self._say(Failed(reason))

    def _say(self, word: Taken | Failed) -> None:
        if self._conversation is None:
            with suppress(RuntimeError):  # no loop runs yet: our end tells the same
                self._conversation = Conversation(self._sock, _decode_old)
        if self._conversation is not None:
            self._conversation.send(word)
            self._conversation.close()
