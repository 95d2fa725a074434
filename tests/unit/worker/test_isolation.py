"""The dead man's switch: by whose word a worker goes on, and for how long without one."""

from gateway.link.snapshot import ProxySettings
from gateway.worker.isolation import Isolation
from tests.unit.worker.test_live_table import Worker, rolling, shares


def made(isolation_s: float) -> tuple[Worker, Isolation]:
    worker = Worker()
    isolation = Isolation(worker.live, 0, clock=lambda: worker.now)
    worker.apply(rolling(50, 50), whole=True, proxy=ProxySettings(isolation_s=isolation_s))
    isolation.look(is_serving=False)
    return worker, isolation


def test_who_shares_its_store_with_nobody_needs_no_word() -> None:
    worker, isolation = made(0.0)
    worker.now += 1e6
    isolation.look()
    assert shares(worker) == [5_000, 5_000]


def test_a_worker_goes_back_without_a_word_and_by_its_table_with_one() -> None:
    worker, isolation = made(30.0)
    assert shares(worker) == [10_000, 0], "no control has said that it has the store"
    isolation.in_touch(worker.now - 10)
    assert shares(worker) == [5_000, 5_000]
    worker.now += 20
    isolation.look()
    assert shares(worker) == [5_000, 5_000]
    worker.now += 0.1
    isolation.look()
    assert shares(worker) == [10_000, 0]
    isolation.in_touch(worker.now - 31)
    assert shares(worker) == [10_000, 0], "a word that has lain around for so long counts no more"
    isolation.in_touch(worker.now)
    assert shares(worker) == [5_000, 5_000]
