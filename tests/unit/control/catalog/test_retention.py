"""Deprecated versions are kept for a while, and never deleted while somebody may need them."""

from pathlib import Path

from msgspec.structs import replace

from gateway.actions.bodies import DrainVersion, Explain
from gateway.control.catalog.retention import Retention
from tests.unit.control.console import ANN, ROOT, Console, console


async def retire(made: Console, *names: str) -> list[str]:
    """Register versions, and have them drained, one after another. Returns their ids."""
    found = []
    for name in names:
        record = await made.register(name)
        await made.pass_probe(record.id)
        await drained(made, record.id)
        found.append(record.id)
    return found


async def drained(made: Console, version_id: str) -> None:
    await made.actions.versions.drain(ANN, version_id, DrainVersion(timeout=0))
    await made.drains.drain(version_id, 0)


async def keep(made: Console, number: int) -> None:
    await made.actions.services.patch(ROOT, "auth", {"keepVersions": number})


def names(made: Console) -> list[str]:
    return [entry.record.version for entry in made.catalog.services["auth"].versions.values()]


def retention(made: Console) -> Retention:
    return Retention(made.store, made.catalog, made.tally, now=made.now)


async def test_the_oldest_deprecated_versions_are_deleted(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await retire(made, *(f"old-{number}" for number in range(7)))
        await retention(made).prune()
        assert names(made) == ["v1", "v2", *(f"old-{number}" for number in range(2, 7))]
        assert {record.version for record in await made.store.load_versions()} == set(names(made))
        deleted = [row for row in await made.audit() if row.action == "version.delete"]
        assert [row.details["version"] for row in deleted] == ["old-1", "old-0"]
        events = await made.store.events(after=0, limit=500)
        said = [event.version for event in events if event.kind == "version.deleted"]
        assert said == ["old-0", "old-1"]
        rows = len(await made.audit())
        await retention(made).prune()
        assert len(await made.audit()) == rows, "nothing is left to do"


async def test_a_version_that_is_not_drained_yet_is_kept(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await keep(made, 1)
        (oldest, _) = await retire(made, "a", "b")
        record = made.catalog.version_record(oldest)
        made.catalog.put_version(replace(record, drained=False))
        await retention(made).prune()
        assert "a" in names(made)


async def test_a_fallback_is_kept(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await keep(made, 1)
        await retire(made, "a", "b", "c")
        await made.actions.services.patch(ROOT, "auth", {"fallback": {"version": "a"}})
        await retention(made).prune()
        assert names(made) == ["v1", "v2", "a", "c"]


async def test_what_testers_may_ask_for_is_kept(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await keep(made, 1)
        await retire(made, "a", "b", "c")
        testers = {"cookie": "release", "values": {"s3cret": "a", "other": "@new"}}
        await made.actions.services.patch(ROOT, "auth", {"testers": testers})
        await retention(made).prune()
        assert names(made) == ["v1", "v2", "a", "c"]


async def test_what_undo_goes_back_to_is_kept(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        old, _ = await made.two_versions()
        await keep(made, 1)
        deployment = await made.start(strategy="immediate")
        await complete(made, deployment.id)
        assert made.catalog.version_record(old).status == "deprecated"
        await retire(made, "a", "b")
        await retention(made).prune()
        assert names(made) == ["v1", "v2", "b"]
        await made.actions.deployments.undo(ANN, "auth", Explain())
        await retention(made).prune()
        assert "v1" in names(made), "an open rollout uses it"


async def complete(made: Console, deployment_id: str) -> None:
    """Let a rollout run to its end."""
    await made.settle()
    await made.actions.deployments.complete(ANN, deployment_id, Explain())
    await made.settle()
    record = await made.store.deployment(deployment_id)
    assert record is not None
    assert record.status == "completed", record.error_message
