"""What other gateways serve of a rollout: judged with ours, each answer once, whoever is in charge."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from gateway.control.rollouts import elsewhere
from gateway.control.rollouts.acts import Acts
from gateway.control.rollouts.elsewhere import Elsewhere
from gateway.control.rollouts.gates import GatesHere
from gateway.control.rollouts.reporting import Reporting
from gateway.control.rollouts.rows import decoded
from gateway.control.rollouts.running import Running
from gateway.control.rollouts.served import Word, served_of, usable_by
from gateway.control.rollouts.stored import load_counts
from gateway.control.sums import CohortError
from gateway.control.tally import Tally
from gateway.core.rollout.state import Rollout
from gateway.errors import StoreUnreachable
from gateway.link.messages import Counts
from gateway.link.totals import JudgedTotals, VersionTotals
from gateway.store.records import NodeState, ServedRecord
from gateway.store.sqlite import SqliteStore
from tests.effort import effort
from tests.unit.control.rollouts.test_barrier import LEADER, node, rollout
from tests.unit.control.world import START, FakeCatalog, FakeChecks, FakeWorker, World

QUICK: Final[dict[str, Any]] = {
    "steps": (10, 50, 100),
    "step_interval": 3000,
    "min_requests": 5,
    "smoke_tests": False,
}


class SharedStore(SqliteStore):
    """A file that says it is a database of several gateways, with their rows in memory."""

    is_shared = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.said: dict[tuple[str, str], ServedRecord] = {}
        self.away = False
        self.seen: list[NodeState] = []

    async def nodes(self) -> list[NodeState]:
        if self.away:
            raise StoreUnreachable("away")
        return self.seen

    async def put_served(self, records: Sequence[ServedRecord]) -> None:
        if self.away:
            raise StoreUnreachable("away")
        self.said.update({(row.deployment_id, row.run): row for row in records})

    async def served(self, known: Iterable[ServedRecord]) -> list[ServedRecord]:
        there = {(row.deployment_id, row.run): row.serial for row in known}
        return [row for key, row in self.said.items() if there.get(key) != row.serial]

    async def drop_served(self) -> None:
        stored = {record.id for record in await self.open_deployments()}
        self.said = {key: row for key, row in self.said.items() if key[0] in stored}


class Cluster(World):
    """The one in charge, and how many gateways that follow it; each has one worker."""

    def __init__(self, path: Path, followers: int) -> None:
        super().__init__(path)
        self.store: SharedStore
        self.workers = [self.worker, *(FakeWorker(f"w{k}") for k in range(followers))]
        self.tallies = [Tally() for _ in range(followers)]
        self.views = [FakeCatalog() for _ in range(followers)]
        """How the versions look from each of them."""
        self.probings = [FakeChecks() for _ in range(followers)]
        """What probes find there when a gate asks for them."""
        self.reportings: list[Reporting] = []
        self.shown: list[Running] = []
        self.said: dict[tuple[str, str], ServedRecord] = {}

    async def open(self) -> "Cluster":
        await super().open()
        self.store.said = self.said
        return self

    async def open_store(self, url: str) -> SqliteStore:
        return await SharedStore.open(url, now=START)

    def make_acts(self) -> Acts:
        made = Elsewhere(self.store, self.tally)
        return Acts(self.catalog, self.hub, self.checks, self.drains, self.webhooks, made)

    def follow(self) -> None:
        """Begin the processes of those that follow."""
        self.reportings = [
            Reporting(self.store, tally, lambda: self.shown, view, GatesHere(probing), node=f"n{k}")
            for k, (tally, view, probing) in enumerate(
                zip(self.tallies, self.views, self.probings, strict=True)
            )
        ]

    async def report(self) -> None:
        self.shown = [Running(record, decoded(record)) for record in await self.store.open_deployments()]
        for worker, tally in zip(self.workers[1:], self.tallies, strict=True):
            worker.report(tally)
        for reporting in self.reportings:
            await reporting.report()

    async def look(self) -> None:
        self.worker.report(self.tally)
        self.now += 1
        await self.rollouts.tick()
        await self.settle()
        self.said = self.store.said

    def serve(self, at: int, answers: int, errors: int) -> None:
        generation = self.catalog.services["auth"].generation
        weight = self.catalog.versions["v2"].weight
        self.workers[at].serve("v2", generation, weight * 100, answers, errors)
        self.workers[at].serve("v1", generation, 10_000 - weight * 100, answers * 5)

    def state(self, deployment: str) -> Rollout | None:
        return self.rollouts.state_of(deployment)


@asynccontextmanager
async def cluster(path: Path, followers: int) -> AsyncIterator[Cluster]:
    path.mkdir(exist_ok=True)
    made = await Cluster(path, followers).open()
    made.follow()
    try:
        yield made
    finally:
        await made.close()


async def life_of(path: Path, followers: int, seed: int, errors: float) -> list[tuple[int, int, str]]:
    """Return (second, percent, status) at each change, of traffic that depends on `seed` alone."""
    chance = random.Random(seed)
    async with cluster(path, followers) as made:
        # long before: another's totals of the stable version are no part of any rollout
        for at in range(1, followers + 1):
            made.workers[at].serve("v1", 0, 10_000, 1_000_000, 900_000)
        await made.report()
        deployment = await made.start(**QUICK)
        await made.settle()
        seen: list[tuple[int, int, str]] = []
        for second in range(60):
            for _ in range(20):
                at = chance.randrange(12) % (followers + 1)
                made.serve(at, 3, sum(chance.random() < errors for _ in range(3)))
            await made.report()
            await made.look()
            record = await made.store.deployment(deployment)
            assert record is not None
            if not seen or (record.traffic_percent, record.status) != seen[-1][1:]:
                seen.append((second, record.traffic_percent, record.status))
            if record.completed_at or record.rolled_back_at:
                break
        return seen


@pytest.mark.parametrize("errors", [0.0, 0.03, 0.1, 0.5])
async def test_the_judge_of_three_gateways_decides_as_that_of_one(tmp_path: Path, errors: float) -> None:
    for seed in range(effort(3)):
        one = await life_of(tmp_path / f"one{seed}", 0, seed, errors)
        three = await life_of(tmp_path / f"three{seed}", 2, seed, errors)
        assert [each[1:] for each in three] == [each[1:] for each in one]
        assert all(abs(a[0] - b[0]) <= 1 for a, b in zip(one, three, strict=True)), (one, three)


async def test_a_version_that_fails_elsewhere_alone_is_rolled_back(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as made:
        deployment = await made.start(**QUICK)
        await made.settle()
        for _ in range(20):
            made.serve(0, 20, 0)
            made.serve(1, 20, 10)
            await made.report()
            await made.look()
            record = await made.store.deployment(deployment)
            assert record is not None
            if record.status == "rolled_back":
                break
        assert record.status == "rolled_back"
        await made.look()
        assert made.store.said == {}, "nobody asks for it any more"
        assert made.tally.part("auth").newest.keys() == {"worker"}


async def answers(made: Cluster, deployment: str) -> int:
    """Return how many answers of the new version the judge has seen."""
    state = made.state(deployment)
    assert state is not None
    return state.evidence.new.answers


SLOW: Final[dict[str, Any]] = {**QUICK, "step_interval": 600_000}


async def test_each_answer_is_counted_once_whatever_comes_twice_late_or_not_at_all(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.look()
        made.serve(1, 10, 0)
        await made.report()
        early = dict(made.store.said)
        await made.look()
        assert await answers(made, deployment) == 10
        made.store.away = True
        made.serve(2, 7, 0)
        with pytest.raises(StoreUnreachable):
            await made.report()
        await made.look()
        assert await answers(made, deployment) == 10
        made.store.away = False
        made.serve(1, 5, 0)
        await made.report()
        await made.look()
        assert await answers(made, deployment) == 22, "what came late is not lost"
        for row in early.values():  # a failover of the database took it back
            made.store.said[row.deployment_id, row.run] = row
        await made.look()
        assert await answers(made, deployment) == 22
        made.store.said.clear()
        made.serve(1, 1, 0)
        await made.report()
        await made.crash()
        made.worker.report(made.tally)
        await made.look()
        await made.look()
        assert await answers(made, deployment) == 23, "nor is anything after a restart"


async def test_a_follower_that_restarts_or_whose_worker_ends_says_it_all_the_same(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as made:
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.look()
        made.serve(1, 10, 0)
        await made.report()
        made.serve(1, 5, 0)
        made.workers[1].report(made.tallies[0])
        made.tallies[0].on_ended("w0")
        made.workers[1] = FakeWorker("w0-second")
        made.serve(1, 2, 0)
        await made.report()
        await made.look()
        assert await answers(made, deployment) == 17
        made.tallies = [Tally()]  # its control dies; the worker serves on
        made.serve(1, 3, 0)
        made.follow()
        await made.report()
        await made.look()
        assert await answers(made, deployment) == 20


async def test_the_next_in_charge_goes_on_with_what_was_counted(tmp_path: Path) -> None:
    """The follower takes over: what it served long ago is no evidence, what it was not asked for yet is."""
    async with cluster(tmp_path, 1) as made:
        made.workers[1].serve("v1", 0, 10_000, 1_000_000, 900_000)
        deployment = await made.start(**SLOW)
        await made.settle()
        await made.look()
        made.serve(0, 4, 0)
        made.serve(1, 10, 0)
        await made.report()
        await made.look()
        made.serve(1, 5, 0)  # never said by a row
        made.workers[1].report(made.tallies[0])
        made.tallies[0].on_ended("w0")
        made.workers[1] = FakeWorker("w0-second")
        made.serve(1, 2, 0)
        made.workers[1].report(made.tallies[0])
        for reporting in made.reportings:
            reporting.give_back()
        await made.drains.stop()
        before = made.worker
        made.worker = made.workers[1]
        tally = made.tallies[0]
        await load_counts(made.store, tally)
        made.rollouts._tally = made.rollouts._elsewhere._tally = made.tally = tally
        await made.rollouts.recover()
        await made.look()
        await made.look()
        state = made.state(deployment)
        assert state is not None
        assert state.evidence.new.answers == 4 + 10 + 5 + 2
        assert state.evidence.old.errors == 0
        # the former one follows, and has served on meanwhile
        made.worker, made.workers[0] = made.workers[1], before
        made.serve(0, 6, 0)
        made.workers, made.tallies = [made.worker, before], [Tally()]
        made.follow()
        await made.report()
        await made.look()
        assert await answers(made, deployment) == 4 + 10 + 5 + 2 + 6


async def test_errors_of_sticky_users_are_taken_once_from_each_process(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as made:
        await made.start(dry_run=True, **SLOW)
        await made.settle()
        await made.look()
        tally = made.tallies[0]
        met = [(1, 1000, key, "500") for key in range(5)]
        cell = JudgedTotals(1, 1000, 10, {"500||user": 5}, {})
        totals = VersionTotals("auth", "v2", "v2", [], {}, {}, 0, 0, 0, [cell], met)
        tally.on_counts(0, "w0", Counts(versions=(totals,)))
        made.workers[1].serve("v2", 1, 1000, 10, 5)
        taken: list[CohortError] = []
        take = made.tally.take_cohort_errors

        def noted(service: str) -> list[CohortError]:
            found = take(service)
            taken.extend(found)
            return found

        made.tally.take_cohort_errors = noted  # type: ignore[method-assign]
        for _ in range(3):
            await made.report()
            await made.look()
        assert [error[3] for error in taken] == [0, 1, 2, 3, 4]
        (row,) = made.store.said.values()
        said = served_of(row)
        assert (said.cells, said.errors) == ({"w0": tally.cells_above({"v2"}, 0)["w0"]}, [])


def word(lately: int, *, old: bool = True, new: bool = True) -> Word:
    return Word(usable=(old, new), lately=lately)


def test_unusable_is_what_gateways_with_half_of_the_traffic_cannot_use() -> None:
    assert usable_by([word(10), word(9, new=False)]) == (True, True)
    assert usable_by([word(10), word(10, new=False)]) == (True, False)
    assert usable_by([word(10, old=False), word(11)]) == (True, True)
    assert usable_by([word(0, old=False), word(0)]) == (False, True), "nobody serves: what is seen here"
    assert usable_by([word(0, new=False), word(1)]) == (True, True)


def at_nodes(made: Cluster) -> None:
    """Have the gateways be seen: the one in charge, and those that follow."""
    seen = [replace(node(f"n{k}"), id=f"n{k}") for k in range(len(made.tallies))]
    made.store.seen = [LEADER, *seen]


async def through_gate(made: Cluster) -> str:
    """Return the deployment that the followers say a word of, as its gate asks them."""
    deployment = await made.start(**SLOW)
    for _ in range(3):
        await made.report()
        await asyncio.sleep(0)  # probes answer
        made.now += 1
        await made.rollouts.tick()
    await made.settle()
    return deployment


async def test_a_version_that_most_cannot_use_is_unusable_although_it_is_here(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as made:
        at_nodes(made)
        deployment = await through_gate(made)
        await made.look()
        made.views[0].unusable = {"v2"}
        for tally in (made.tally, *made.tallies):
            tally.answers_lately = lambda version_ids: 10  # type: ignore[method-assign]
        await made.report()
        await made.look()
        state = made.state(deployment)
        assert state is not None
        assert (state.old_usable, state.new_usable) == (True, False)
        made.store.seen[1] = replace(made.store.seen[1], is_silent=True)
        await made.look()
        state = made.state(deployment)
        assert state is not None
        assert state.new_usable, "what a silent one has said is old"
        assert state.silent == ("n0",)


async def gate(made: Cluster, probed: str) -> str:
    """Return the status, or why it failed, after a gate at which the follower's probes found `probed`."""
    made.probings[0].gate_reason = probed
    deployment = await through_gate(made)
    record = await made.store.deployment(deployment)
    assert record is not None
    return record.status if not record.error_message else record.error_message


async def test_the_gate_is_passed_on_every_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that had found the version healthy long ago, and cannot reach it now, was let pass."""
    async with cluster(tmp_path, 1) as made:
        at_nodes(made)
        with monkeypatch.context() as patch:
            patch.setattr(elsewhere, "GATE_S", 0.3)
            failed = await gate(made, "the health check failed: no route")
        assert failed == (
            "The new version did not pass its gate: gateway n0: the health check failed: no route"
        )
        assert await gate(made, "") == "rolling"


async def test_a_gateway_that_says_nothing_fails_the_gate_unless_it_is_of_another_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "GATE_S", 0.3)
    async with cluster(tmp_path, 1) as made:
        at_nodes(made)
        made.reportings = []
        assert (await gate(made, "")).endswith("gateway n0: it has not said what its probes found")
        made.store.seen[1] = replace(made.store.seen[1], release="0")
        assert await gate(made, "") == "rolling"


async def test_a_gate_is_not_passed_while_nobody_knows_which_gateways_there_are(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as made:
        at_nodes(made)
        made.store.away = True
        with pytest.raises(StoreUnreachable):
            await made.rollouts._elsewhere.gate(rollout())


async def test_of_two_processes_of_a_gateway_the_later_one_counts_whatever_clock_it_goes_by(
    tmp_path: Path,
) -> None:
    """What a release said that went by a clock an hour ahead was believed until the rollout ended."""
    async with cluster(tmp_path, 1) as made:
        at_nodes(made)
        deployment = await through_gate(made)
        for tally in (made.tally, *made.tallies):
            tally.answers_lately = lambda version_ids: 10  # type: ignore[method-assign]
        made.views[0].unusable = {"v2"}
        made.reportings[0]._begun += 3600.0
        await made.report()
        made.views[0].unusable = set()
        made.tallies = [Tally()]  # it is upgraded
        made.tallies[0].answers_lately = lambda version_ids: 10  # type: ignore[method-assign]
        made.follow()
        await made.report()
        await made.look()
        state = made.state(deployment)
        assert state is not None
        assert state.new_usable
        assert len(made.store.said) == 2, "both are there"


async def test_an_earlier_release_in_charge_goes_by_the_later_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes by when each says that it began: by its machine's clock, or by the database's."""
    async with cluster(tmp_path, 1) as made:
        for ahead in (timedelta(hours=-1), timedelta(hours=1)):
            databases = datetime.now(UTC) + ahead
            monkeypatch.setattr(made.store, "now", lambda now=databases: now)
            machines = time.time()
            made.follow()
            assert made.reportings[0]._begun >= max(machines, databases.timestamp())


async def test_nothing_goes_on_while_nobody_knows_who_there_is(tmp_path: Path) -> None:
    async with cluster(tmp_path, 0) as made:
        deployment = await made.start(**{**QUICK, "steps": (100,)})
        await made.settle()
        made.serve(0, 20, 0)
        await made.look()
        await made.crash()
        made.store.away = True
        for _ in range(8):
            made.serve(0, 20, 0)
            made.worker.report(made.tally)
            made.now += 1
            await made.rollouts.tick()
        state = made.state(deployment)
        assert state is not None
        assert (state.applied, state.elapsed_ms) == (True, 0)
        made.store.away = False
        for _ in range(8):
            made.serve(0, 20, 0)
            await made.look()
        record = await made.store.deployment(deployment)
        assert record is not None
        assert record.status == "completed"
