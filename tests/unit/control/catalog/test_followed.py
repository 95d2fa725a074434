"""A catalog that follows another gateway's comes to what that one has, and sends out only what is new."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.control.catalog.catalog import Catalog
from gateway.control.catalog.followed import Followed
from gateway.core.routing.service import UpstreamTlsSettings
from gateway.errors import ConfigError
from gateway.store.records import CatalogRows
from tests.unit.control.console import ROOT, Console, Links, console


class Follower:
    """A catalog beside the console's, on the same store."""

    def __init__(self, made: Console) -> None:
        self.made = made
        self.links = Links()
        self.catalog = Catalog(self.links, workers=2, now=made.now)
        self.followed = Followed(self.catalog)

    async def read(self, *names: str) -> int:
        chosen = set(names) or None
        return self.take(await self.made.store.load_catalog(chosen), chosen)

    def take(self, rows: CatalogRows, names: set[str] | None) -> int:
        self.followed.put(rows, names)
        return self.followed.publish()

    def weights(self) -> dict[str, int]:
        entries = self.catalog.services["auth"].versions.values()
        return {entry.record.version: entry.record.weight for entry in entries}


async def test_what_was_stored_is_taken_and_only_news_are_sent_out(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        _, new = await made.two_versions()
        await made.service("mail")
        follower = Follower(made)
        first = await follower.read()
        assert follower.catalog.services.keys() == {"auth", "mail"}
        assert follower.weights() == {"v1": 100, "v2": 0}
        assert await follower.read() == first, "what changes nothing is not sent out again"

        async with made.store.transaction() as tx:
            record = replace(made.catalog.version_record(new), weight=20)
            tx.put_version(record)
            tx.on_commit(lambda: made.catalog.put_version(record))
        assert await follower.read("mail") == first
        assert follower.weights() == {"v1": 100, "v2": 0}
        assert await follower.read("auth") > first
        assert follower.weights() == {"v1": 100, "v2": 20}
        assert follower.links.newest.services.keys() == {"auth"}


async def test_what_was_deleted_is_gone(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await made.service("mail")
        follower = Follower(made)
        await follower.read()
        await made.actions.services.delete(ROOT, "mail")
        async with made.store.transaction() as tx:
            tx.delete_version(made.catalog.services["auth"].named("v2").record.id)  # type: ignore[union-attr]
        await follower.read()
        assert follower.catalog.services.keys() == {"auth"}
        assert follower.weights() == {"v1": 100}
        assert follower.links.newest.removed == ("mail",)


async def test_a_service_that_comes_back_as_it_was_is_taken_again(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        follower = Follower(made)
        rows = await made.store.load_catalog()
        follower.take(rows, None)
        follower.take(CatalogRows([], [], []), None)
        assert not follower.catalog.services
        follower.take(rows, None)
        assert follower.weights() == {"v1": 100, "v2": 0}


async def test_a_service_that_was_made_anew_has_nothing_of_the_old_one(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        follower = Follower(made)
        rows = await made.store.load_catalog()
        follower.take(rows, None)
        anew = [replace(each, id="anew") for each in rows.services]
        version = replace(rows.versions[0], id="another", service_id="anew", weight=70)
        follower.take(CatalogRows(anew, [version], []), {"auth"})
        assert follower.weights() == {"v1": 70}
        assert follower.catalog.service_record("auth").id == "anew"
        assert not follower.catalog.has_version(rows.versions[0].id)


async def test_a_service_whose_tls_cannot_be_used_here_changes_nothing(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        follower = Follower(made)
        first = await follower.read()
        async with made.store.transaction() as tx:
            record = made.catalog.service_record("auth")
            tls = UpstreamTlsSettings(ca=str(tmp_path / "nothing.pem"))
            tx.put_service(replace(record, settings=replace(record.settings, tls=tls)))
            tx.put_service(replace(record, id="other", name="other"))
        with pytest.raises(ConfigError, match=r"nothing\.pem"):
            await follower.read()
        assert follower.catalog.services.keys() == {"auth"}
        assert follower.catalog.number == first


async def test_an_open_rollout_is_shown_as_it_was_stored(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        started = await made.start()
        await made.settle()
        rows: Any = await made.store.load_catalog({"auth"})
        assert [record.id for record in rows.deployments] == [started.id]
        follower = Follower(made)
        follower.catalog.follow(made.rollouts)
        await follower.read()
        (sent,) = follower.links.newest.services.values()
        assert sent.rollout is not None
        assert (sent.rollout.id, sent.rollout.percent) == (started.id, 10)
