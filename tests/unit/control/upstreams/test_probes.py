"""Probes: thresholds, retries inside a check, hurry, what is stored and told. Real store and catalog."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.control.catalog.catalog import Catalog
from gateway.control.rollouts.notices import message_of
from gateway.control.upstreams import probes as module
from gateway.control.upstreams.probes import Probed, Probes
from gateway.core.resilience.health import Health, HealthSettings
from gateway.core.routing.service import ServiceSettings
from gateway.errors import ConnectFailed, Exhausted, StoreError, UpstreamTimeout
from gateway.http1.fetch import FetchResult
from gateway.link.snapshot import Snapshot
from gateway.store.records import HealthCheckRecord, ServiceRecord, VersionRecord
from gateway.store.sqlite import SqliteStore

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = HealthSettings(retries=0, healthy_threshold=2, unhealthy_threshold=3, interval=3_600_000)


class Upstream:
    """Answers by url. What is asked of it is kept."""

    def __init__(self) -> None:
        self.status: dict[str, int | Exception | list[int]] = {}
        """A list is answered from its front, its last element for ever."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.body = b"fine"
        self.waiting = 0
        self.most_waiting = 0
        self.gate: asyncio.Event | None = None
        """Answers wait for it."""

    async def fetch(self, url: str, **how: Any) -> FetchResult:
        self.asked.append((url, how))
        if self.gate is not None:
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            await self.gate.wait()
            self.waiting -= 1
        answer = self.status.get(url, 200)
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return FetchResult(answer, {}, self.body, 0.001)

    async def tcp_check(self, url: str, **how: Any) -> float:
        self.asked.append((url, how))
        answer = self.status.get(url)
        if isinstance(answer, Exception):
            raise answer
        return 0.001


class Links:
    def __init__(self) -> None:
        self.whole: Callable[[], Snapshot] | None = None
        self.tables: list[Snapshot] = []

    def publish(self, snapshot: Snapshot) -> None:
        self.tables.append(snapshot)


class World:
    def __init__(self, upstream: Upstream, store: SqliteStore) -> None:
        self.upstream = upstream
        self.store = store
        self.time = START
        self.links = Links()
        self.catalog = Catalog(self.links, clock=lambda: 50.0, now=lambda: START)
        self.probes = Probes(store, self.catalog, chance=lambda: 0.5, now=self.now)

    def now(self) -> datetime:
        """A clock that never says the same twice."""
        self.time += timedelta(milliseconds=1)
        return self.time

    async def fill(self, health: HealthSettings | bool, replicas: int, stored: Health) -> None:
        service = ServiceRecord(
            id="s", name="auth", settings=ServiceSettings(health=health), created_at=START, updated_at=START
        )
        version = VersionRecord(
            id="v1",
            service_id="s",
            service_name="auth",
            version="v1",
            url=url(0),
            replicas=tuple(url(number + 1) for number in range(replicas)),
            weight=100,
            health_status=stored.value if stored is not Health.DRAINED else "unknown",
            ever_healthy=stored is not Health.UNKNOWN,
            created_at=START,
            updated_at=START,
        )
        async with self.store.transaction() as tx:
            tx.put_service(service)
            tx.put_version(version)
        await self.catalog.load(self.store)

    async def check(self) -> Health:
        """Check the first endpoint once; returns the version's health."""
        probed = self.catalog.probed(self.catalog.endpoint_keys("v1")[0])
        assert probed is not None
        await self.probes.check(probed)
        return self.catalog.health_of("v1")

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)

    async def events(self) -> list[str]:
        return [event.kind for event in await self.store.events(after=0, limit=100)]

    async def results(self) -> list[HealthCheckRecord]:
        return (await self.store.health("v1", limit=100)).items

    async def stored(self) -> VersionRecord:
        (record,) = await self.store.load_versions()
        return record


def url(number: int) -> str:
    return f"http://127.0.0.1:{7200 + number}"


@asynccontextmanager
async def world(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    health: HealthSettings | bool = SETTINGS,
    replicas: int = 0,
    stored: Health = Health.UNKNOWN,
) -> AsyncIterator[World]:
    upstream = Upstream()
    monkeypatch.setattr(module, "fetch", upstream.fetch)
    monkeypatch.setattr(module, "tcp_check", upstream.tcp_check)
    store = await SqliteStore.open(f"sqlite:///{path / 'gateway.db'}", now=START)
    made = World(upstream, store)
    await made.fill(health, replicas, stored)
    try:
        yield made
    finally:
        await store.close()


@asynccontextmanager
async def running(made: World) -> AsyncIterator[None]:
    """Run the loop of the probes for a while."""
    task = asyncio.ensure_future(made.probes.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# one check


async def test_a_version_that_never_passed_needs_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        made.upstream.status[url(0)] = 503
        assert await made.check() is Health.UNKNOWN
        made.upstream.status[url(0)] = 204
        assert await made.check() is Health.HEALTHY
        assert made.links.tables[-1].services["auth"].versions[0].endpoints[0].healthy


async def test_thresholds_count_checks_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, stored=Health.HEALTHY) as made:
        made.upstream.status[url(0)] = [503, 503, 200, 503, 503, 503, 200, 200]
        seen = [await made.check() for _ in range(8)]
        assert seen == [Health.HEALTHY] * 5 + [Health.UNHEALTHY] * 2 + [Health.HEALTHY]
        assert len(made.links.tables) == 2, "a table for each change, and no other"
        await made.probes.flush()
        assert await made.events() == ["version.unhealthy", "version.healthy"]


async def test_retries_stay_inside_one_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = HealthSettings(retries=2, unhealthy_threshold=1)
    async with world(tmp_path, monkeypatch, health=health, stored=Health.HEALTHY) as made:
        made.upstream.status[url(0)] = [503, 503, 200]
        assert await made.check() is Health.HEALTHY
        assert len(made.upstream.asked) == 3
        made.upstream.status[url(0)] = 503
        assert await made.check() is Health.UNHEALTHY
        assert len(made.upstream.asked) == 6
        await made.probes.flush()
        assert [each.is_healthy for each in await made.results()] == [False, True]


async def test_a_check_asks_as_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = HealthSettings(
        path="/up?deep=1",
        timeout=250,
        retries=0,
        expected_status="200,418",
        expected_body="tea",
        headers={"X-Probe": "1"},
        host="tea.example",
    )
    async with world(tmp_path, monkeypatch, health=health) as made:
        made.upstream.status[url(0)] = 418
        assert await made.check() is Health.UNKNOWN
        made.upstream.body = b"a pot of tea"
        assert await made.check() is Health.HEALTHY
        asked, how = made.upstream.asked[-1]
        assert (asked, how["path"], how["timeout_s"]) == (url(0), "/up?deep=1", 0.25)
        assert how["fields"] == [("X-Probe", "1"), ("Host", "tea.example")]
        assert how["address"] == "127.0.0.1"
        await made.probes.flush()
        newest, oldest = await made.results()
        assert newest.error_message is None
        assert oldest.error_message == "the body does not contain what it should"


@pytest.mark.parametrize(
    "error", [ConnectFailed("connection refused"), UpstreamTimeout("no answer"), ConnectFailed("no route")]
)
@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_what_the_upstream_does_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, error: Exception
) -> None:
    health = HealthSettings(kind=kind, retries=0, unhealthy_threshold=1)
    async with world(tmp_path, monkeypatch, health=health) as made:
        assert await made.check() is Health.HEALTHY
        made.upstream.status[url(0)] = error
        assert await made.check() is Health.UNHEALTHY
        await made.probes.flush()
        newest = (await made.results())[0]
        assert (newest.is_healthy, newest.status_code, newest.error_message) == (False, None, str(error))


async def test_a_check_we_had_no_descriptor_for_says_nothing_of_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = HealthSettings(retries=0, unhealthy_threshold=1)
    async with world(tmp_path, monkeypatch, health=health) as made:
        assert await made.check() is Health.HEALTHY
        made.upstream.status[url(0)] = Exhausted("too many open files")
        assert await made.check() is Health.HEALTHY
        await made.probes.flush()
        assert len(await made.results()) == 1


# on demand


async def test_the_worst_endpoint_speaks_for_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, replicas=2) as made:
        made.upstream.status[url(1)] = 500
        result = await made.probes.check_now("v1")
        assert (result.is_healthy, result.status_code) == (False, 500)
        assert result.error == "status 500, expected 200-299"
        assert {each.is_healthy for each in await made.results()} == {True, False}


async def test_the_gate_passes_what_answers_and_says_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        made.upstream.status[url(0)] = 503
        assert await made.probes.gate("v1") == "the health check failed: status 503, expected 200-299"
        made.upstream.status[url(0)] = 200
        assert await made.probes.gate("v1") == ""
        assert (await made.stored()).ever_healthy


async def test_the_gate_of_a_version_that_was_ill_takes_several_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, stored=Health.UNHEALTHY) as made:
        assert await made.probes.gate("v1") == ""
        assert len(made.upstream.asked) == SETTINGS.healthy_threshold


async def test_a_version_nobody_probes_is_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, health=False) as made:
        assert (await made.probes.check_now("v1")).is_healthy
        assert await made.probes.gate("v1") == ""
        async with running(made):
            await asyncio.sleep(0)
        assert made.upstream.asked == []


async def test_a_name_without_an_address_passes_no_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        made.catalog.put_version(replace(await made.stored(), url="http://nowhere.internal:80"))
        assert made.catalog.endpoint_keys("v1") == ()
        assert await made.probes.gate("v1") == "the health check failed: its host name has no address"
        assert not (await made.probes.check_now("v1")).is_healthy


# the loop


async def test_every_endpoint_is_probed_at_once_and_its_version_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, replicas=2) as made, running(made):
        await made.until(lambda: made.catalog.version_record("v1").is_active)
        await made.until(lambda: len({asked for asked, _ in made.upstream.asked}) == 3)
        await made.until(lambda: not made.probes._results)
        stored = await made.stored()
        assert (stored.health_status, stored.ever_healthy) == ("healthy", True)
        assert stored.last_health_check == (await made.results())[0].checked_at
        assert await made.events() == ["version.healthy"]


async def test_results_are_stored_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, replicas=39) as made:
        commits = 0
        transaction = made.store.transaction

        def counted() -> Any:
            nonlocal commits
            commits += 1
            return transaction()

        monkeypatch.setattr(made.store, "transaction", counted)
        async with running(made):
            await made.until(lambda: len(made.upstream.asked) == 40 and not made.probes._results)
        assert len(await made.results()) == 40
        assert commits <= 4


async def test_only_so_many_checks_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, replicas=module.CONCURRENT + 20) as made:
        made.upstream.gate = asyncio.Event()
        async with running(made):
            await made.until(lambda: made.upstream.waiting == module.CONCURRENT)
            made.upstream.gate.set()
            await made.until(lambda: len(made.upstream.asked) == module.CONCURRENT + 21)
        assert made.upstream.most_waiting == module.CONCURRENT


async def test_failures_of_requests_bring_the_next_probe_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made, running(made):
        (key,) = made.catalog.endpoint_keys("v1")
        await made.until(lambda: len(made.upstream.asked) == 1)
        await made.until(lambda: not made.probes._results)
        for _ in range(100):
            made.probes.hurry(key)
        made.probes.hurry("v1|gone|gone")
        await made.until(lambda: len(made.upstream.asked) == 2)
        await made.until(lambda: not made.probes._results)
        assert len(made.upstream.asked) == 2, "a hundred failures are one reason to look, not a hundred"


async def test_an_endpoint_that_is_gone_is_probed_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, replicas=1) as made, running(made):
        await made.until(lambda: len(made.probes._tasks) == 2)
        async with made.store.transaction() as tx:  # else what a probe is just storing brings it back
            record = replace(made.catalog.version_record("v1"), replicas=())
            tx.put_version(record)
            tx.on_commit(partial(made.catalog.put_version, record))
        await made.until(lambda: len(made.probes._tasks) == 1)
        assert set(made.probes._hurry) == set(made.catalog.endpoint_keys("v1"))


# a store that cannot write


class Full:
    """A disk that is full for a while, at the commit."""

    def __init__(self, store: SqliteStore, error: StoreError) -> None:
        self.error: StoreError | None = error
        self._transaction = store.transaction
        self.refused = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._transaction() as tx:
            yield tx
            if self.error is not None:
                self.refused += 1
                raise self.error


async def test_a_full_disk_delays_results_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        full = Full(made.store, StoreError("gateway.db: disk is full"))
        monkeypatch.setattr(made.store, "transaction", full.transaction)
        assert (await made.probes.check_now("v1")).is_healthy, "what was found holds, stored or not"
        async with running(made):
            await made.until(lambda: full.refused >= 2)
            full.error = None
            await made.until(lambda: not made.probes._results)
        assert len(await made.results()) == 2
        assert await made.events() == ["version.healthy"]
        assert (await made.stored()).ever_healthy


async def test_no_more_waits_for_the_store_than_it_would_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        monkeypatch.setattr(module, "KEPT_RESULTS", 2)
        for _ in range(5):
            await made.check()
        await made.probes.flush()
        assert len(await made.results()) == 2


async def test_what_is_found_during_a_commit_is_stored_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        await made.check()
        storing = asyncio.ensure_future(made.probes.flush())
        await asyncio.sleep(0)
        await made.check()
        await storing
        await made.probes.flush()
        assert len(await made.results()) == 2


# versions nobody waits for


async def idle(made: World, **changed: Any) -> None:
    """Take the weight from the version, and whatever else."""
    made.catalog.put_version(replace(await made.stored(), weight=0, **changed))


def probed(made: World) -> Probed | None:
    return made.catalog.probed(made.catalog.endpoint_keys("v1")[0])


async def test_a_version_without_weight_is_asked_at_every_sixth_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, stored=Health.HEALTHY) as made:
        found = probed(made)
        assert found is not None
        assert not found.is_rare
        await idle(made)
        found = probed(made)
        assert found is not None
        assert found.is_rare
        waits: list[float] = []

        @asynccontextmanager
        async def timeout(seconds: float) -> AsyncIterator[None]:
            waits.append(seconds)
            await asyncio.sleep(0)
            raise TimeoutError
            yield

        monkeypatch.setattr(asyncio, "timeout", timeout)
        task = asyncio.ensure_future(made.probes._watch(found.key, asyncio.Event()))
        while len(waits) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert waits[0] == 6 * SETTINGS.interval / 1000


async def test_a_version_that_is_just_coming_up_is_not_asked_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy registers a version, starts its process, and waits until it is healthy."""
    async with world(tmp_path, monkeypatch, stored=Health.UNKNOWN) as made:
        await idle(made)
        found = probed(made)
        assert found is not None
        assert (found.is_idle, found.is_rare) == (True, False)
        made.catalog._now = lambda: START + timedelta(hours=1)
        found = probed(made)
        assert found is not None
        assert found.is_rare, "nobody waits so long"


async def test_an_idle_version_that_fails_alarms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, stored=Health.HEALTHY) as made:
        await idle(made)
        made.upstream.status[url(0)] = 500
        while await made.check() is not Health.UNHEALTHY:
            pass
        await made.probes.flush()
        (event,) = await made.store.events(after=0, limit=100)
        assert event.kind == "version.unhealthy"
        assert message_of(event) is None, "no webhook, no alert"
        assert (await made.stored()).health_status == "unhealthy"


async def test_a_drained_version_is_asked_until_its_process_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to show the health it had when it was drained, for ever."""
    async with world(tmp_path, monkeypatch, stored=Health.HEALTHY) as made:
        await idle(made, draining=True, drained=True, is_active=False, status="deprecated")
        assert list(made.catalog.to_probe()) == list(made.catalog.endpoint_keys("v1"))
        assert await made.check() is Health.HEALTHY
        made.upstream.status[url(0)] = 500
        while await made.check() is not Health.UNKNOWN:
            pass
        assert list(made.catalog.to_probe()) == [], "nobody is there any more"
        await made.probes.flush()
        assert (await made.stored()).health_status == "unknown"


async def test_who_follows_another_gateway_goes_by_its_own_probes_and_stores_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch) as made:
        made.store.follows = True
        assert await made.check() is Health.HEALTHY
        await made.probes.flush()
        made.store.follows = False
        await made.probes.flush()
        assert await made.results() == []
        assert await made.events() == []
