"""The catalog: built from store and file, changed by committed rows, sent out as numbered tables."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.actions.bodies import Explain, PatchVersion
from gateway.actions.problems import Problem
from gateway.config import FileService
from gateway.control.catalog.declared import route_conflict, store_declared
from gateway.core.resilience.health import Health
from gateway.core.routing.service import RouteSettings, ServiceSettings
from gateway.errors import ConfigError, StoreError
from gateway.link.snapshot import BreakerView, ProxySettings, ServiceSnap
from tests.conftest import Authority
from tests.unit.control.console import ANN, ROOT, Console, console

PROXY = ProxySettings(trusted_proxies=(("10.0.0.0/8",),))


def declared(name: str = "auth", *, path: str | None = None, **more: Any) -> FileService:
    body = {"name": name, "routes": [{"path": path or f"/{name}"}], **more}
    return msgspec.convert(body, FileService)


V1 = {"version": "v1", "url": "http://127.0.0.1:7200", "weight": 100}
V2 = {"version": "v2", "url": "http://127.0.0.1:7201"}


def versions(made: Console, service: str = "auth") -> dict[str, Any]:
    entries = made.catalog.services[service].versions.values()
    return {entry.record.version: entry for entry in entries}


def ageless(service: ServiceSnap) -> ServiceSnap:
    """Return what workers are told of a service, but for how long its endpoints have been there."""
    replace = msgspec.structs.replace
    told = []
    for version in service.versions:
        endpoints = tuple(replace(endpoint, available_for_s=0.0) for endpoint in version.endpoints)
        told.append(replace(version, endpoints=endpoints))
    return replace(service, versions=tuple(told))


async def reopened(made: Console) -> Console:
    """Return the console of the next control process, on the same store."""
    await made.close()
    made.links = type(made.links)()
    return await made.open()


# The file


async def test_what_the_file_declares_is_made_and_stored(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1, V2])]) as made:
        assert {name: entry.record.weight for name, entry in versions(made).items()} == {"v1": 100, "v2": 0}
        (service,) = await made.store.load_services()
        assert (service.name, service.source) == ("auth", "file")
        first = versions(made)["v1"]
        await made.pass_probe(first.record.id)
        assert made.catalog.service_record("auth").current_version_id == first.record.id


async def test_weights_that_were_stored_in_part_are_those_of_the_open_deployment(tmp_path: Path) -> None:
    """A probe's result was stored with the weight that a lower share, not stored itself, had given a version;
    control and workers were killed. The next control served by weights of 25, or by none at all.
    """
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        await made.start(steps=[50, 100], stepInterval=60_000, smokeTests=False)
        await made.settle()
        replace = msgspec.structs.replace
        for weights in ((50, 0), (100, 50), (0, 0)):
            async with made.store.transaction() as tx:
                for version_id, weight in zip((old, new), weights, strict=True):
                    record = await made.stored(version_id)
                    tx.put_version(replace(record, weight=weight))
            await reopened(made)
            assert {name: entry.record.weight for name, entry in versions(made).items()} == {
                "v1": 50,
                "v2": 50,
            }


async def test_a_row_read_before_a_rollback_went_ahead_of_it_does_not_undo_it(tmp_path: Path) -> None:
    """A probe's result was being committed, slowly, while the rollback was put in force: its row, with the
    weights of before, took the catalog and then the workers back to them.
    """
    replace = msgspec.structs.replace
    async with console(tmp_path, [declared(version=[V1, V2])]) as made:
        catalog, service = made.catalog, made.catalog.service_record("auth")
        before = replace(versions(made)["v2"].record, weight=25, health_status="unknown")
        catalog.put_version(before)
        catalog.put_ahead(replace(service, generation=service.generation + 1), [replace(before, weight=0)])
        catalog.put_version(replace(before, health_status="healthy"))
        catalog.put_service(replace(service, settings=ServiceSettings(keep_versions=9)))
        assert versions(made)["v2"].record == replace(before, weight=0, health_status="healthy")
        assert catalog.service_record("auth").generation == service.generation + 1
        assert catalog.service_record("auth").settings.keep_versions == 9
        catalog.caught_up("auth")
        catalog.put_version(replace(before, weight=30))
        assert versions(made)["v2"].record.weight == 30


async def test_a_reload_leaves_in_force_what_went_ahead_of_the_store(tmp_path: Path) -> None:
    """SIGHUP while a rollback waited for the disk gave the new version its traffic back, for good."""
    replace = msgspec.structs.replace
    async with console(tmp_path, [declared(version=[V1, V2])]) as made:
        catalog, service = made.catalog, made.catalog.service_record("auth")
        old, new = versions(made)["v1"].record, versions(made)["v2"].record
        async with made.store.transaction() as tx:
            tx.put_version(replace(old, weight=75))
            tx.put_version(replace(new, weight=25))
        ahead = [replace(old, weight=100), replace(new, weight=0)]
        catalog.put_ahead(replace(service, generation=service.generation + 1), ahead)
        await catalog.reload(made.store, made.declared, PROXY)
        assert {name: entry.record.weight for name, entry in versions(made).items()} == {"v1": 100, "v2": 0}
        (sent,) = catalog.whole().services.values()
        assert sorted(version.weight for version in sent.versions) == [0, 100]


async def test_a_version_that_is_being_rolled_out_is_not_taken_for_the_current_one(tmp_path: Path) -> None:
    """The old version has never answered, the new one has some of the traffic: its rollout decides."""
    async with console(tmp_path, [declared(version=[V1, V2])]) as made:
        await made.pass_probe(versions(made)["v2"].record.id)
        await made.start(fromVersion="v1")
        await made.settle()
        assert versions(made)["v2"].record.weight == 10
        await made.pass_probe(versions(made)["v2"].record.id)
        assert made.catalog.service_record("auth").current_version_id is None


async def test_a_single_version_without_a_weight_gets_all_of_it(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V2])]) as made:
        assert versions(made)["v2"].record.weight == 100


async def test_the_file_names_versions_only_while_the_store_has_none(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        ids = {entry.record.id for entry in versions(made).values()}
        made.declared = [declared(version=[V1, V2], slowStart=5)]
        await reopened(made)
        assert {entry.record.id for entry in versions(made).values()} == ids
        assert made.catalog.service_record("auth").settings.slow_start == 5


async def test_a_service_the_file_drops_is_kept_but_not_served(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        made.declared = []
        await reopened(made)
        assert not made.catalog.services
        assert len(await made.store.load_versions()) == 1
        made.declared = [declared()]
        await reopened(made)
        assert list(versions(made)) == ["v1"]


async def test_the_name_of_a_dropped_service_can_be_used_again(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        made.declared = []
        await reopened(made)
        await made.service("auth")
        assert versions(made) == {}
        assert await made.store.load_versions() == []


async def test_a_dropped_service_with_an_open_deployment_is_served_on(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1, V2])]) as made:
        for entry in versions(made).values():
            await made.pass_probe(entry.record.id)
        await made.start()
        made.declared = []
        await reopened(made)
        assert "auth" in made.catalog.services


async def test_a_reload_is_all_or_nothing(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        await made.service("mail")
        sent = len(made.links.tables)
        with pytest.raises(ConfigError, match=r"'mail'.*'news'|'news'.*'mail'"):
            await made.catalog.reload(made.store, [declared("news", path="/mail"), declared("more")], PROXY)
        assert sorted(made.catalog.services) == ["auth", "mail"]
        assert len(await made.store.load_services()) == 2
        assert len(made.links.tables) == sent
        await made.catalog.reload(made.store, [declared("more")], PROXY)
        assert sorted(made.catalog.services) == ["mail", "more"]
        table = made.links.newest
        assert (table.whole, table.proxy, sorted(table.services)) == (True, PROXY, ["mail", "more"])


async def test_tls_files_that_cannot_be_used_are_refused_before_anything_follows(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        bad = declared(tls={"ca": "/nowhere/ca.pem"})
        with pytest.raises(ConfigError, match=r"service 'auth': tls.*/nowhere/ca\.pem"):
            await made.catalog.reload(made.store, [bad], PROXY)
        assert made.catalog.service_record("auth").settings.tls.ca is None


async def test_a_reload_keeps_what_endpoints_have_learned(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        version = versions(made)["v1"]
        await made.pass_probe(version.record.id)
        (key,) = version.endpoints
        made.catalog.set_breaker(key, BreakerView(3, "OPEN"))
        await made.catalog.reload(made.store, [declared(version=[V1], slowStart=1)], PROXY)
        (endpoint,) = versions(made)["v1"].endpoints.values()
        assert (endpoint.breaker.epoch, endpoint.state.health) == (3, Health.HEALTHY)


async def test_a_reload_reads_the_files_of_upstreams_again(tmp_path: Path, authority: Authority) -> None:
    service = declared(version=[V1], tls={"ca": str(authority.ca)})
    async with console(tmp_path / "store", [service]) as made:
        version = versions(made)["v1"].record.id
        first = made.catalog.tls_of(version)
        await made.catalog.reload(made.store, [service], PROXY)
        assert made.catalog.tls_of(version) not in (None, first)


async def test_a_reload_that_drops_a_service_with_an_open_deployment_is_refused(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1, V2])]) as made:
        for entry in versions(made).values():
            await made.pass_probe(entry.record.id)
        await made.start()
        with pytest.raises(ConfigError, match="'auth' has an open deployment"):
            await made.catalog.reload(made.store, [], PROXY)


async def test_a_declared_service_is_read_only_but_for_versions_and_weights(tmp_path: Path) -> None:
    async with console(tmp_path, [declared(version=[V1])]) as made:
        for work in (
            made.actions.services.patch(ROOT, "auth", {"slowStart": 1}),
            made.actions.services.delete(ROOT, "auth"),
            made.service("auth"),
        ):
            with pytest.raises(Problem) as refused:
                await work
            assert refused.value.status == 409
        record = await made.register("v2")
        await made.actions.versions.patch(ANN, record.id, PatchVersion(weight=10))
        assert made.weights() == {"v1": 100, "v2": 10}
        assert (await made.actions.services.pause(ANN, "auth", Explain())).paused


# A restart


async def test_everything_is_rebuilt_from_the_store(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        await made.actions.versions.patch(ANN, new, PatchVersion(weight=30))
        before = made.catalog.whole()
        await reopened(made)
        after = made.catalog.whole()
        assert ageless(after.services["auth"]) == ageless(before.services["auth"])
        assert made.catalog.is_usable(old)
        assert made.catalog.service_record("auth").current_version_id == old


async def test_stored_health_stands_until_the_first_probe(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        await reopened(made)
        assert made.catalog.health_of(old) is Health.HEALTHY
        (probed,) = made.catalog.endpoints_of(old)
        assert not probed.state.checked(ok=False)
        assert made.catalog.is_usable(old)


async def test_the_first_table_knows_the_open_deployment(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        record = await made.start()
        await made.settle()
        await made.close()
        made.links = type(made.links)()
        await made.open()
        made.catalog._rollouts = None
        await made.catalog.load(made.store)
        rollout = made.catalog.whole().services["auth"].rollout
        assert rollout is not None
        assert (rollout.id, rollout.old, rollout.new, rollout.percent) == (record.id, old, new, 10)


async def test_a_row_that_does_not_load_stops_the_start(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.register("v1")
        async with made.store.transaction() as tx:
            await tx.execute("UPDATE gateway_service_version SET status = 'nonsense'")
        with pytest.raises(StoreError, match="gateway_service_version"):
            await made.catalog.load(made.store)


async def test_what_the_file_adds_is_not_stored_while_another_control_is_in_charge(tmp_path: Path) -> None:
    """An upgrade may still fail: the old control goes on, and knows nothing of the new one's file."""
    declared = FileService(name="news", routes=(RouteSettings(path="/news"),))
    async with console(tmp_path) as made:
        await made.catalog.load(made.store, [declared])
        early = made.catalog.services["news"].record.id
        assert "news" in made.catalog.whole().services
        assert await made.store.load_services() == []
        await store_declared(made.store, [declared], made.now())
        await made.catalog.load(made.store, [declared])
        (stored,) = await made.store.load_services()
        assert made.catalog.services["news"].record == stored
        assert stored.id != early


# Tables


async def test_tables_are_numbered_and_name_what_is_gone(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.service("mail")
        await made.service("news")
        first = made.catalog.publish(["mail"])
        assert list(made.links.newest.services) == ["mail"]
        await made.actions.services.delete(ROOT, "mail")
        table = made.links.newest
        assert table.number > first
        assert (dict(table.services), table.removed, table.whole) == ({}, ("mail",), False)
        assert made.links.whole is not None
        whole = made.links.whole()
        assert (whole.whole, whole.number, list(whole.services), whole.workers) == (
            True,
            table.number,
            ["news"],
            2,
        )
        assert whole.proxy is not None


async def test_a_recovered_endpoint_is_new_again(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        endpoint = next(iter(made.catalog.version(old).endpoints.values()))
        assert endpoint.snap(100.0).available_for_s >= 50
        for _ in range(3):
            endpoint.state.checked(ok=False)
        assert not endpoint.snap(101.0).healthy
        for _ in range(2):
            endpoint.state.checked(ok=True)
        assert endpoint.snap(110.0).available_for_s == 0
        assert endpoint.snap(115.0).available_for_s == 5


async def test_a_drained_version_shows_no_endpoints(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        await made.drains.drain(new, 0)
        made.catalog.publish(["auth"])
        snap = made.links.newest.services["auth"].versions[1]
        assert (snap.draining, snap.endpoints) == (True, ())
        assert new in {key.partition("|")[0] for key in made.catalog.to_probe()}, "its process may answer"


# What is usable


async def test_usable_is_active_healthy_not_draining_and_some_breaker_not_open(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        assert made.catalog.is_usable(old)
        assert not made.catalog.is_usable(new)
        assert not made.catalog.is_usable("gone")
        (key,) = made.catalog.endpoint_keys(old)
        made.catalog.set_breaker(key, BreakerView(1, "OPEN"))
        assert not made.catalog.is_usable(old)
        assert made.catalog.version_record(old).circuit_state == "OPEN"
        made.catalog.set_breaker(key, BreakerView(2, "HALF_OPEN"))
        assert made.catalog.is_usable(old)
        assert made.catalog.version_record(old).circuit_state == "HALF_OPEN"
        made.catalog.set_breaker("gone|u|a", BreakerView(2, "OPEN"))


async def test_a_service_without_health_checks_takes_its_versions_for_healthy(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.service("mail", health=False)
        record = await made.register("v1", service="mail")
        assert made.catalog.is_usable(record.id)
        assert (await made.actions.versions.get(record.id)).is_active
        assert list(made.catalog.to_probe()) == []
        assert made.catalog.endpoints_of(record.id) == []


# Names


async def test_addresses_come_and_go_and_keep_their_endpoints(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        url = "http://auth.test"
        record = await made.register("v1", url=url)
        assert made.catalog.named_urls() == [(record.id, url)]
        assert made.catalog.health_of(record.id) is Health.UNKNOWN
        assert made.catalog.set_addresses(record.id, url, ("10.0.0.1", "10.0.0.2"))
        kept = made.catalog.endpoint(f"{record.id}|{url}|10.0.0.2")
        assert not made.catalog.set_addresses(record.id, url, ("10.0.0.2", "10.0.0.1"))
        assert made.catalog.set_addresses(record.id, url, ("10.0.0.2", "10.0.0.3"))
        assert made.catalog.endpoint(f"{record.id}|{url}|10.0.0.2") is kept
        assert made.catalog.endpoint(f"{record.id}|{url}|10.0.0.1") is None
        assert not made.catalog.set_addresses(record.id, "http://other", ("10.0.0.1",))
        assert not made.catalog.set_addresses("gone", url, ("10.0.0.1",))
        (snap,) = made.links.newest.services["auth"].versions
        assert [endpoint.address for endpoint in snap.endpoints] == ["10.0.0.2", "10.0.0.3"]


async def test_an_address_that_is_added_later_has_to_pass_first(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        url = "http://auth.test"
        made.addresses[url] = ("10.0.0.1",)
        record = await made.register("v1", url=url)
        await made.pass_probe(record.id)
        await reopened(made)
        assert not made.catalog.is_usable(record.id)
        made.catalog.set_addresses(record.id, url, ("10.0.0.1",))
        assert made.catalog.is_usable(record.id)
        made.catalog.set_addresses(record.id, url, ("10.0.0.1", "10.0.0.2"))
        healthy = [each.is_healthy for each in made.catalog.version(record.id).endpoints.values()]
        assert healthy == [True, False]


async def test_observers_hear_of_changes(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        heard: list[tuple[str, str, str | None]] = []
        made.catalog.subscribe(
            lambda kind, service, version: heard.append((kind, service, version and version.version))
        )
        await made.register("v1")
        assert heard[0] == ("service", "auth", None)
        assert heard[-1] == ("version", "auth", "v1")


def test_one_service_may_not_claim_a_route_twice() -> None:
    services = {"one": ServiceSettings(routes=(RouteSettings(path="/a"), RouteSettings(path="/a")))}
    assert route_conflict(services) == "service 'one' claims */a twice"


@pytest.mark.parametrize(
    ("one", "other", "conflicts"),
    [
        (RouteSettings(path="/a"), RouteSettings(path="/a"), True),
        (RouteSettings(host="X.test", path="/a"), RouteSettings(host="x.TEST", path="/a"), True),
        (RouteSettings(path="/a"), RouteSettings(path="/a/"), True),
        (RouteSettings(path="/a"), RouteSettings(path="/b"), False),
        (RouteSettings(host="x", path="/a"), RouteSettings(path="/a"), False),
        (RouteSettings(path="/a", methods=("GET",)), RouteSettings(path="/a"), False),
        (RouteSettings(path="/a", methods=("GET", "PUT")), RouteSettings(path="/a", methods=("put",)), True),
        (RouteSettings(path="/a", methods=("GET",)), RouteSettings(path="/a", methods=("PUT",)), False),
    ],
)
def test_two_services_may_not_claim_one_route(
    one: RouteSettings, other: RouteSettings, conflicts: bool
) -> None:
    services = {"one": ServiceSettings(routes=(one,)), "two": ServiceSettings(routes=(other,))}
    problem = route_conflict(services)
    assert bool(problem) == conflicts
    if conflicts:
        assert "'one'" in problem
        assert "'two'" in problem


async def test_shares_are_what_versions_really_get(tmp_path: Path) -> None:
    """Weights are relative: 50 and 100 are a third and two thirds, and an ill version gets nothing."""
    third = V1 | {"version": "v3", "url": "http://127.0.0.1:7202", "weight": 0}
    async with console(
        tmp_path, [declared(version=[V1 | {"weight": 50}, V2 | {"weight": 100}, third])]
    ) as made:
        ids = {name: entry.record.id for name, entry in versions(made).items()}
        assert made.catalog.shares("auth") == {}, "nothing has passed a probe"
        for version_id in ids.values():
            await made.pass_probe(version_id)
        shares = made.catalog.shares("auth")
        assert shares == {ids["v1"]: pytest.approx(100 / 3), ids["v2"]: pytest.approx(200 / 3)}
        for _ in range(5):
            for probed in made.catalog.endpoints_of(ids["v2"]):
                probed.state.checked(ok=False)
        assert made.catalog.shares("auth") == {ids["v1"]: 100.0}


async def test_the_stand_by_of_a_rollout_has_all_when_nothing_else_is_usable(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, new = await made.two_versions()
        await made.start(strategy="immediate")
        await made.settle()
        assert made.catalog.shares("auth") == {new: 100.0}
        for _ in range(5):
            for probed in made.catalog.endpoints_of(new):
                probed.state.checked(ok=False)
        assert made.catalog.shares("auth") == {old: 100.0}
