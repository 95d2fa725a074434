"""Processes that die, hang or are replaced while clients ask all the time."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.integration.processes.harness import Gateway, Load, is_alive, wait_until

REQUESTS = 2000


@pytest.fixture
def load(gateway: Gateway) -> Iterator[Load]:
    gateway.start()
    clients = Load(gateway.port)
    clients.until(50)
    yield clients
    clients.stop()


def all_ready(status: dict[str, list[int]]) -> bool:
    return status["ready"] == [0, 1]


def only_new(old: dict[int, int], gateway: Gateway) -> None:
    """Wait until none of the `old` workers runs, and two others serve."""
    wait_until(lambda: not any(map(is_alive, old.values())), f"the old workers ended\n{gateway.logged()}")
    gateway.wait(lambda status: all_ready(status) and len(status["workers"]) == 2, "two new workers")
    assert not set(old.values()) & set(gateway.workers().values())


# -- workers


def test_a_killed_worker_is_replaced_on_the_same_sockets(gateway: Gateway, load: Load) -> None:
    before = gateway.ask()
    for round_ in range(5):
        pid = gateway.workers()[round_ % 2]
        os.kill(pid, signal.SIGKILL)
        gateway.wait(lambda status, pid=pid: all_ready(status) and pid not in workers_of(status), "replaced")
        load.until(REQUESTS // 5)
    load.stop()
    assert gateway.ask()["sockets"] == before["sockets"]
    assert gateway.ask()["restarts"]["killed"] == 5
    assert len(load.failures) <= 5 * 6  # at most one for each connection a killed worker held


def test_connections_waiting_in_the_queue_outlive_their_worker(gateway: Gateway) -> None:
    gateway.start("--workers", "1", ready=1)
    pid = gateway.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    waiting = [socket.create_connection(("127.0.0.1", gateway.port), timeout=30) for _ in range(20)]
    for sock in waiting:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    os.kill(pid, signal.SIGKILL)
    for sock in waiting:
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.close()


def test_a_hung_worker_is_killed_and_replaced(gateway: Gateway) -> None:
    gateway.start()
    pid = gateway.workers()[1]
    os.kill(pid, signal.SIGSTOP)
    gateway.wait(lambda status: status["restarts"]["hung"] == 1 and all_ready(status), "replaced")
    assert not is_alive(pid)
    assert gateway.get() == 200


def test_a_worker_told_to_end_drains_while_another_takes_its_place(gateway: Gateway, load: Load) -> None:
    pid = gateway.workers()[0]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(pid), "the worker ended")
    gateway.wait(all_ready, "replaced")
    load.until(REQUESTS)
    load.stop()
    assert load.failures == []
    assert gateway.ask()["restarts"] == {"exited": 0, "killed": 0, "hung": 0}


def test_sockets_of_a_slot_that_backs_off_are_served_by_another(gateway: Gateway) -> None:
    gateway.start()
    healthy = gateway.workers()[1]
    for kills in range(1, 5):  # after the fourth, the slot stays empty for 0.4 s
        gateway.wait(all_ready, "worker 0 is there")
        os.kill(gateway.workers()[0], signal.SIGKILL)
        gateway.wait(lambda status, kills=kills: status["restarts"]["killed"] == kills, "worker 0 is gone")
    for _ in range(20):  # about half of them fall to the empty slot's socket
        assert gateway.get() == 200
    gateway.wait(all_ready, "worker 0 back")
    for _ in range(20):
        assert gateway.get() == 200
    assert gateway.workers()[1] == healthy


def test_workers_that_die_at_their_start_are_backed_off_from(gateway: Gateway) -> None:
    control = gateway.launch("--entry", "crash")
    wait_until(lambda: gateway.logged().count("worker_lost") >= 8, "eight crashes")
    delays = [float(found) for found in re.findall(r'"slot": 0.*?"next_in_s": ([0-9.]+)', gateway.logged())]
    assert delays[:4] == [0, 0.1, 0.1, 0.1]  # nobody else serves
    control.process.send_signal(signal.SIGTERM)
    control.wait()


# -- control


def test_workers_serve_on_without_control_and_the_next_one_adopts_them(gateway: Gateway, load: Load) -> None:
    for _ in range(5):
        old, sockets = gateway.workers(), gateway.ask()["sockets"]
        gateway.controls[-1].kill()
        load.until(REQUESTS // 10)  # nobody is in control
        assert all(map(is_alive, old.values()))
        gateway.start()
        only_new(old, gateway)
        assert gateway.ask()["sockets"] == sockets
        load.until(REQUESTS // 10)
    load.stop()
    assert load.failures == []
    assert load.slowest_s < 2
    gateway.wait(lambda status: status["answered"] == load.answered, "nothing counted twice or lost")


def test_a_killed_template_is_followed_by_its_twin_again_and_again(gateway: Gateway, load: Load) -> None:
    control, workers = gateway.controls[-1], gateway.workers()
    for _ in range(3):
        template = gateway.wait(lambda status: status["spare"], "a twin")["template"]
        os.kill(template, signal.SIGKILL)
        gateway.wait(lambda status, template=template: status["template"] != template, "its twin")
    assert gateway.workers() == workers, "workers live on"
    load.until(REQUESTS // 2)
    load.stop()
    assert load.failures == []
    assert control.process.poll() is None
    for pid in workers.values():  # their template is long dead
        os.kill(pid, signal.SIGKILL)
    gateway.wait(
        lambda status: all_ready(status) and not set(workers.values()) & workers_of(status), "replaced"
    )
    assert gateway.ask()["restarts"]["killed"] == 2
    assert gateway.get() == 200


def test_a_hung_worker_of_a_dead_template_is_killed(gateway: Gateway) -> None:
    gateway.start()
    gateway.wait(lambda status: status["spare"], "a twin")
    os.kill(gateway.ask()["template"], signal.SIGKILL)
    pid = gateway.workers()[1]
    os.kill(pid, signal.SIGSTOP)
    gateway.wait(lambda status: status["restarts"]["hung"] == 1 and all_ready(status), "replaced")
    assert not is_alive(pid)


def test_template_and_twin_dead_end_control_but_not_its_workers(gateway: Gateway, load: Load) -> None:
    old = gateway.workers()
    status = gateway.wait(lambda status: status["spare"], "a twin")
    os.kill(gateway.controls[-1].pid, signal.SIGSTOP)  # so that it sees both deaths at once
    os.kill(status["spare"], signal.SIGKILL)
    os.kill(status["template"], signal.SIGKILL)
    os.kill(gateway.controls[-1].pid, signal.SIGCONT)
    gateway.controls[-1].wait()  # it could replace no worker any more
    assert all(map(is_alive, old.values()))
    gateway.start()
    only_new(old, gateway)
    load.until(REQUESTS)
    load.stop()
    assert load.failures == []


def test_all_workers_killed_twice_in_a_second_answer_within_one(gateway: Gateway) -> None:
    gateway.start()
    for _ in range(2):
        for pid in gateway.workers().values():
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert gateway.get() == 200, "the connection waits in the socket that control holds"
        assert time.monotonic() - began < 10, "not a slot's whole pause"
    gateway.wait(all_ready, "both are back")
    assert gateway.ask()["restarts"]["killed"] >= 2


def test_fewer_workers_keep_every_socket(gateway: Gateway, load: Load) -> None:
    old, sockets = gateway.workers(), gateway.ask()["sockets"]
    gateway.controls[-1].kill()
    gateway.start("--workers", "1", ready=1)
    wait_until(lambda: not any(map(is_alive, old.values())), "the old workers ended")
    load.until(REQUESTS)
    load.stop()
    assert load.failures == []
    assert gateway.ask()["sockets"] == sockets


def test_orphans_nobody_adopts_leave_nothing_behind(gateway: Gateway) -> None:
    control = gateway.start("--orphan", "2")
    assert gateway.get() == 200
    gateway.ask()
    control.kill()
    assert gateway.get() == 200
    wait_until(lambda: not any(map(is_alive, gateway.pids)), "every process ended")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port))
    assert not (gateway.folder / "control.sock").exists()
    gateway.start()
    assert gateway.get() == 200


def test_a_stopped_control_does_not_take_its_workers_for_hung(gateway: Gateway) -> None:
    control = gateway.start()
    before = gateway.workers()
    os.kill(control.pid, signal.SIGSTOP)
    load = Load(gateway.port)
    load.until(REQUESTS)
    load.stop()
    os.kill(control.pid, signal.SIGCONT)
    gateway.wait(lambda status: status["answered"] == load.answered, "the counts made good")
    assert gateway.workers() == before
    assert load.failures == []


def test_shutdown_breaks_no_connection_it_has_accepted(gateway: Gateway, load: Load) -> None:
    control = gateway.controls[-1]
    control.process.send_signal(signal.SIGTERM)
    assert control.wait() == 0
    load.stop()
    assert [failure for failure in load.failures if "Refused" not in failure] == []
    assert [failure for failure in load.failures if failure.startswith("kept")] == []
    wait_until(lambda: not any(map(is_alive, gateway.pids)), "every process ended")


# -- upgrade


def test_upgrades_cost_nothing(gateway: Gateway, load: Load) -> None:
    for _ in range(5):
        status, old = gateway.ask(), gateway.workers()
        os.kill(status["pid"], signal.SIGUSR2)
        gateway.wait(
            lambda now, status=status: now["pid"] != status["pid"] and all_ready(now), "a new control"
        )
        assert gateway.ask()["epoch"] == status["epoch"] + 1
        assert gateway.ask()["sockets"] == status["sockets"]
        only_new(old, gateway)
        load.until(REQUESTS // 5)
    assert gateway.controls[0].wait() == 0
    load.stop()
    assert load.failures == []
    assert load.slowest_s < 2
    gateway.wait(lambda status: status["answered"] == load.answered, "nothing counted twice or lost")


@pytest.mark.parametrize(
    ("point", "reason"), [("ready", "made to fail"), ("commit", "ended with 7"), ("epoch", "ended with 7")]
)
def test_an_upgrade_that_fails_leaves_the_old_control_in_charge(
    gateway: Gateway, point: str, reason: str
) -> None:
    control = gateway.start(env={"MINI_FAIL": point})
    before = gateway.ask()
    workers = gateway.workers()
    load = Load(gateway.port)
    os.kill(control.pid, signal.SIGUSR2)
    gateway.wait(lambda status: reason in status["upgrade_error"], "the reason")
    load.until(REQUESTS)
    load.stop()
    after = gateway.ask()
    raised = 2 if point == "epoch" else 0  # by the one that died, and by the one that takes it back
    assert (after["pid"], after["epoch"], after["sockets"]) == (
        control.pid,
        before["epoch"] + raised,
        before["sockets"],
    )
    assert gateway.workers() == workers
    assert load.failures == []
    gateway.wait(lambda status: len(status["workers"]) == 2, "the new one's workers are gone")


def test_a_predecessor_that_dies_before_it_lets_go_is_succeeded(gateway: Gateway, load: Load) -> None:
    status, old = gateway.ask(), gateway.workers()
    gateway.controls[-1].process.send_signal(signal.SIGUSR2)
    wait_until(lambda: gateway.logged().count("worker_started") > 2, "the new control's workers")
    gateway.controls[-1].kill()
    gateway.wait(lambda now: now["pid"] != status["pid"] and all_ready(now), "a new control")
    only_new(old, gateway)
    load.until(REQUESTS)
    load.stop()
    assert load.failures == []


def workers_of(status: dict[str, list[dict[str, int]]]) -> set[int]:
    return {worker["pid"] for worker in status["workers"]}
