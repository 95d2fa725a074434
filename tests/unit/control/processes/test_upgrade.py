"""What is said between two controls, and how the old one goes on when the new one does not come to be."""

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.control.processes import upgrade as module
from gateway.control.processes.conversation import ENVIRONMENT, Commit, Conversation, Offer, decode_new
from gateway.control.processes.listeners import Listeners
from gateway.control.processes.lock import StoreLock
from gateway.control.processes.succession import Succession
from gateway.control.processes.upgrade import Upgrade, UpgradeFailed
from gateway.errors import LinkError
from gateway.link.spawn import ListenSpec

SUCCESSOR = """
import asyncio, os, sys
from gateway.control.processes.succession import Succession
async def main():
    succession = Succession.from_environ(os.environ)
    listeners = await succession.listeners()
    {say}
asyncio.run(main())
"""
TAKES = "handed = await succession.commit(); succession.taken(7); print(len(listeners), sorted(handed.admin))"
DIES = "handed = await succession.commit(); os._exit(5)"


class Room:
    """An old control with everything it would hand over."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.lock = StoreLock.acquire(folder)
        self.listeners = Listeners([ListenSpec("127.0.0.1:0")], 2)
        self.listeners.bind()
        self.link = socket.create_server(("127.0.0.1", 0))
        self.said: list[str] = []
        self.is_wanted = True
        self.upgrade = Upgrade(
            lock=self.lock,
            held=lambda: self.listeners.held,
            link=self.link,
            admin={"127.0.0.1:4201": self.link},
            quiesce=self.quiesce,
            resume=self.resume,
            is_wanted=lambda: self.is_wanted,
            schema=7,
            command=command,
        )

    async def quiesce(self) -> None:
        self.said.append("quiesce")

    async def resume(self) -> None:
        self.said.append("resume")

    async def fail(self) -> str:
        """Return why the upgrade failed."""
        try:
            with pytest.raises(UpgradeFailed) as failure:
                await self.upgrade.run()
            return str(failure.value)
        finally:
            self.close()

    def close(self) -> None:
        self.listeners.close()
        self.link.close()
        self.lock.drop()


def successor(say: str) -> tuple[str, ...]:
    return sys.executable, "-c", SUCCESSOR.format(say=say)


async def test_everything_goes_over_at_one_point(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    room = Room(tmp_path, *successor(TAKES))
    pid = await room.upgrade.run()
    assert room.said == ["quiesce"]
    room.close()
    os.waitpid(pid, 0)
    assert capfd.readouterr().out.endswith("2 ['127.0.0.1:4201']\n")


async def test_a_successor_that_does_not_start_is_named(tmp_path: Path) -> None:
    room = Room(tmp_path, "/nowhere/gateway")
    assert "/nowhere/gateway does not start" in await room.fail()
    assert room.said == []


async def test_a_successor_that_ends_early_is_known_by_its_exit_code(tmp_path: Path) -> None:
    room = Room(tmp_path, sys.executable, "-c", "raise SystemExit(3)")
    assert "ended with 3" in await room.fail()
    assert room.said == []


async def test_a_successors_own_reason_is_passed_on(tmp_path: Path) -> None:
    room = Room(tmp_path, *successor("succession.failed('service[0].helth: unknown key')"))
    assert await room.fail() == "service[0].helth: unknown key"


async def test_a_successor_knows_which_schema_its_predecessor_can_go_on_with(tmp_path: Path) -> None:
    room = Room(tmp_path, *successor("succession.failed(f'beside schema {succession.schema}')"))
    assert await room.fail() == "beside schema 7"


async def test_a_successor_that_is_never_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_S", 0.05)
    room = Room(tmp_path, sys.executable, "-c", "import sys; sys.stdin.read(); import signal; signal.pause()")
    assert "not ready after 0.05 s" in await room.fail()


async def test_a_successor_that_dies_before_the_epoch_leaves_the_old_one_at_work(tmp_path: Path) -> None:
    room = Room(tmp_path, *successor(DIES))
    assert "ended with 5" in await room.fail()
    assert room.said == ["quiesce", "resume"]
    assert (tmp_path / "gateway.lock").read_text().strip() == str(os.getpid())


async def test_a_successor_that_falls_silent_after_commit_is_ended_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it has done by then, it does no more: only then is everything taken back."""
    monkeypatch.setattr(module, "TAKE_S", 0.05)
    pid_file = tmp_path / "pid"
    silent = f"handed = await succession.commit(); open({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    room = Room(tmp_path, *successor(silent + "; await asyncio.Event().wait()"))
    assert "not taken after 0.05 s" in await room.fail()
    assert room.said == ["quiesce", "resume"]
    if pid_file.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)


async def test_a_gateway_that_is_to_stop_meanwhile_does_not_live_on(tmp_path: Path) -> None:
    room = Room(tmp_path, *successor(TAKES))
    room.is_wanted = False
    assert "is to stop" in await room.fail()
    assert room.said == []


async def test_one_upgrade_at_a_time(tmp_path: Path) -> None:
    room = Room(tmp_path, *successor("await asyncio.Event().wait()"))
    first = asyncio.ensure_future(room.upgrade.run())
    await asyncio.sleep(0)
    with pytest.raises(UpgradeFailed, match="already under way"):
        await room.upgrade.run()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    room.close()


@pytest.mark.parametrize(
    ("pid", "parent", "init"), [(1, 0, "gateway"), (7, 1, "tini"), (7, 1, "docker-init")]
)
async def test_a_container_would_end_with_the_old_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int, parent: int, init: str
) -> None:
    room = Room(tmp_path, "/nowhere/gateway")
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    read_text = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a: init if str(self) == "/proc/1/comm" else read_text(self, *a)
    )
    assert "start a new container" in await room.fail()


async def test_a_successor_whose_predecessor_died_takes_the_lock_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    environ = {ENVIRONMENT: str(theirs.detach())}
    succession = Succession.from_environ(environ)
    assert succession is not None
    assert environ == {}
    old: Conversation[Any] = Conversation(ours, decode_new)
    old.send(Offer(()))
    assert await succession.listeners() == []
    asyncio.get_running_loop().call_soon(old.close)
    asyncio.get_running_loop().call_later(0.05, monkeypatch.setattr, os, "getppid", lambda: 1)
    assert await succession.commit() is None
    assert os.getppid() == 1  # it waited until the lock was free


async def test_a_word_out_of_turn_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    old: Conversation[Any] = Conversation(ours, decode_new)
    old.send(Commit())
    with pytest.raises(LinkError, match="Commit came where Offer was due"):
        await Succession(theirs).listeners()
    old.close()


@pytest.mark.parametrize("value", ["", "x", "99999"])
async def test_a_conversation_that_is_none_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(LinkError, match=ENVIRONMENT):
        Succession.from_environ({ENVIRONMENT: value})
