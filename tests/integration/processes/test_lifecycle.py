"""Control and workers as real processes: start, table, counts, refusal, stop."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.integration.processes.harness import Control, Gateway, is_alive, wait_until


def test_a_gateway_serves_and_ends_without_a_trace(gateway: Gateway) -> None:
    control = gateway.start()
    status = gateway.ask()
    assert status["ready"] == [0, 1]
    assert status["addresses"] == [f"127.0.0.1:{gateway.port}"]
    assert len({inode for _, inode in status["sockets"]}) == 2
    assert gateway.get() == 200
    control.process.send_signal(signal.SIGTERM)
    assert control.wait() == 0
    wait_until(lambda: not any(map(is_alive, gateway.pids)), "every process ended")
    assert not (gateway.folder / "control.sock").exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port))


def test_every_worker_acknowledges_a_table(gateway: Gateway) -> None:
    gateway.start()
    answer = gateway.ask("publish 20")
    assert answer["stragglers"] == []
    assert [worker["applied"] for worker in answer["workers"]] == [2, 2]


def test_a_stopped_worker_is_named_as_straggler(gateway: Gateway) -> None:
    gateway.start()
    pid = gateway.workers()[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert gateway.ask("publish 0.3")["stragglers"] == [1]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_workers_count_reaches_control_exactly(gateway: Gateway) -> None:
    gateway.start()
    for _ in range(50):
        assert gateway.get() == 200
    gateway.wait(lambda status: status["answered"] == 50, "50 requests counted")


def test_an_interrupt_for_the_whole_group_drains_in_order(gateway: Gateway) -> None:
    control = gateway.start()
    gateway.ask()
    os.killpg(control.pid, signal.SIGINT)
    assert control.wait() == 0
    wait_until(lambda: not any(map(is_alive, gateway.pids)), "every process ended")


def test_a_second_control_on_one_store_is_refused(gateway: Gateway) -> None:
    first = gateway.start()
    second = Control(gateway.folder, "--listen", "127.0.0.1:0")
    assert second.wait() == 1
    assert f"held by process {first.pid}" in gateway.logged()
    assert gateway.get() == 200


def test_a_taken_port_is_refused_by_its_address(
    gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gateway.start()
    folder: Path = tmp_path_factory.mktemp("other")
    other = Control(folder, "--listen", f"127.0.0.1:{gateway.port}")
    assert other.wait() == 1
    assert f"listen.address: 127.0.0.1:{gateway.port} is already in use" in other.log.read_text()
    assert gateway.get() == 200


def test_every_listen_table_is_served(gateway: Gateway) -> None:
    gateway.start("--listen", "127.0.0.1:0")
    for address in gateway.ask()["addresses"]:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_running_request_is_finished_before_the_end(gateway: Gateway) -> None:
    control = gateway.start()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as sock:
        sock.sendall(b"GET /?delay_ms=700 HTTP/1.1\r\nHost: a\r\n\r\n")
        gateway.wait(lambda status: status["in_flight"] == 1, "the request runs")
        control.process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert control.wait() == 0


def test_a_second_signal_ends_it_now(gateway: Gateway) -> None:
    control = gateway.start("--drain", "600")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as sock:
        sock.sendall(b"GET /?delay_ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        gateway.wait(lambda status: status["in_flight"] == 1, "the request runs")
        control.process.send_signal(signal.SIGTERM)
        gateway.wait(lambda status: all(worker["draining"] for worker in status["workers"]), "draining")
        control.process.send_signal(signal.SIGTERM)
        assert control.wait() == 0
    wait_until(lambda: not any(map(is_alive, gateway.pids)), "every process ended")
