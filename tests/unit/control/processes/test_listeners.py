"""Binding, adopting and sharing listening sockets."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.processes.listeners import AddressTaken, Listeners, bound_address
from gateway.errors import ConfigError
from gateway.link.messages import ListenerName
from gateway.link.spawn import ListenSpec


@pytest.fixture
def made() -> Iterator[list[Listeners]]:
    kept: list[Listeners] = []
    yield kept
    for listeners in kept:
        listeners.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def bind(made: list[Listeners], *addresses: str, slots: int = 2) -> Listeners:
    listeners = Listeners([ListenSpec(address) for address in addresses], slots)
    made.append(listeners)
    listeners.bind()
    return listeners


def test_every_slot_has_its_own_socket_at_one_port(made: list[Listeners]) -> None:
    listeners = bind(made, "127.0.0.1:0", slots=3)
    assert [held.name.slot for held in listeners.held] == [0, 1, 2]
    assert len({held.inode for held in listeners.held}) == 3
    assert {bound_address(held.sock) for held in listeners.held} == set(listeners.addresses())


def test_a_taken_port_is_an_error_and_not_a_silent_half_share(made: list[Listeners]) -> None:
    (address,) = bind(made, "127.0.0.1:0").addresses()
    with pytest.raises(AddressTaken, match=f"listen.address: {address} is already in use"):
        bind(made, address)


def test_an_address_that_is_not_ours_is_an_error(made: list[Listeners]) -> None:
    with pytest.raises(ConfigError, match=r"listen.address: 192.0.2.1:8080 cannot be bound"):
        bind(made, "192.0.2.1:8080")


def test_adopted_sockets_are_kept_and_the_rest_is_bound_beside_them(made: list[Listeners]) -> None:
    old = bind(made, "127.0.0.1:0", slots=1)
    (address,) = old.addresses()
    new = Listeners([ListenSpec(address)], 2)
    made.append(new)
    held = new.adopt(ListenerName(address, 0), os.dup(old.held[0].sock.fileno()))
    assert held is not None
    assert new.taken() == []
    new.bind()
    assert [one.name.slot for one in new.held] == [0, 1]
    assert new.held[0].inode == old.held[0].inode


def test_a_socket_brought_twice_is_held_once(made: list[Listeners]) -> None:
    listeners = bind(made, "127.0.0.1:0", slots=1)
    before = open_descriptors()
    fd = os.dup(listeners.held[0].sock.fileno())
    assert listeners.adopt(ListenerName("x", 0), fd) is None
    assert open_descriptors() == before


def test_a_socket_at_an_address_nobody_configured_is_closed(made: list[Listeners]) -> None:
    listeners = Listeners([ListenSpec("127.0.0.1:1")], 1)
    made.append(listeners)
    sock = socket.create_server(("127.0.0.1", 0))
    assert listeners.adopt(ListenerName("x", 0), sock.detach()) is None
    assert listeners.held == []


def test_a_configured_port_zero_takes_what_its_table_had(made: list[Listeners]) -> None:
    old = bind(made, "127.0.0.1:0", slots=1)
    new = Listeners([ListenSpec("127.0.0.1:0")], 1)
    made.append(new)
    assert new.adopt(old.held[0].name, os.dup(old.held[0].sock.fileno())) is not None
    new.bind()
    assert new.addresses() == old.addresses()


def test_two_sockets_of_one_slot_keep_apart(made: list[Listeners]) -> None:
    one, two = bind(made, "127.0.0.1:0", slots=1), bind(made, "127.0.0.1:0", slots=1)
    new = Listeners([ListenSpec("127.0.0.1:0")], 1)
    made.append(new)
    for old in (one, two):
        new.adopt(old.held[0].name, os.dup(old.held[0].sock.fileno()))
    assert [held.name.slot for held in new.held] == [0, 1]


ACTIVATED = """
import os, socket
from gateway.control.processes.listeners import Listeners
from gateway.link.spawn import ListenSpec
os.environ["LISTEN_PID"] = str(os.getpid())
address = "%s:%d" % socket.socket(fileno=os.dup(3)).getsockname()
listeners = Listeners([ListenSpec(address)], 3)
listeners.adopt_activated(os.environ)
listeners.bind()
print(sorted(held.name.slot for held in listeners.held), len({held.inode for held in listeners.held}))
print(any(os.get_inheritable(held.sock.fileno()) for held in listeners.held))
"""


def test_an_activated_socket_is_shared_by_every_slot() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        ended = subprocess.run(
            ["/bin/sh", "-c", 'exec "$@" 3<&0', "sh", sys.executable, "-c", ACTIVATED],
            stdin=sock.fileno(),
            env={**os.environ, "LISTEN_FDS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.stdout.splitlines() == ["[0, 1, 2] 1", "False"], ended.stderr


def test_sockets_activated_for_another_process_are_left_alone() -> None:
    listeners = Listeners([ListenSpec("127.0.0.1:0")], 1)
    listeners.adopt_activated({"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert listeners.held == []


def test_barred_sockets_keep_who_waits_and_take_nobody_new(made: list[Listeners]) -> None:
    """Who came while a queue was taken and its socket closed would be reset: nobody comes then."""
    listeners = bind(made, "127.0.0.1:0", slots=1)
    sock = listeners.held[0].sock
    address = sock.getsockname()
    with socket.create_connection(address) as waiting, socket.socket() as late:
        assert listeners.stop_handshakes()
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(address)
        accepted, peer = sock.accept()
        accepted.close()
        assert peer == waiting.getsockname()
    with pytest.raises(BlockingIOError):
        sock.accept()


def test_a_socket_the_manager_keeps_is_not_barred() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listeners = Listeners([ListenSpec("{}:{}".format(*sock.getsockname()))], 1)
        listeners.adopt(ListenerName("", 0), os.dup(sock.fileno()))
        assert len(listeners.held) == 1
        assert not listeners.stop_handshakes()
        socket.create_connection(sock.getsockname(), timeout=30).close()
        listeners.close()
