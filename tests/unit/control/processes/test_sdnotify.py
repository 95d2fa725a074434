"""What systemd is notified of."""

import os
import socket
from pathlib import Path

from gateway.control.processes.sdnotify import Notifier


def test_states_go_to_the_socket_that_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.ready()
        notifier.main_pid(42)
        notifier.reloading()
        notifier.stopping()
        notifier.watchdog()
        received = [manager.recv(1000).decode() for _ in range(5)]
    assert received[:2] == [f"READY=1\nMAINPID={os.getpid()}", "MAINPID=42"]
    assert received[2].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert received[3:] == ["STOPPING=1", "WATCHDOG=1"]


def test_an_abstract_socket_is_found() -> None:
    name = f"gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert manager.recv(100).startswith(b"READY=1\n")


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_the_watchdog_is_fed_twice_as_often_as_asked() -> None:
    assert Notifier({"WATCHDOG_USEC": "3000000"}).watchdog_s == 1.5
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 1.5
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier({}).watchdog_s is None
