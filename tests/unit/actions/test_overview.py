"""The overview is all services in one call: shares as they are, the open rollout, the newest one."""

from pathlib import Path

import msgspec

from gateway.admin.calls import overview
from tests.unit.control.console import Console, console


async def glances(made: Console, name: str | None = None) -> dict[str, object]:
    found = await made.actions.overview.services(name)
    return {each.record.name: each for each in found}


async def test_a_share_is_what_a_version_gets_now(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        record = await made.register("v1")
        assert made.catalog.shares("auth") == {}, "it has weight, and no probe has passed"
        await made.pass_probe(record.id)
        assert made.catalog.shares("auth") == {record.id: 100.0}


async def test_services_come_by_name_with_their_newest_rollout(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        await made.register("v1", service="basket")
        found = await glances(made)
        assert list(found) == ["auth", "basket"]
        assert list(await glances(made, "basket")) == ["basket"]
        assert await glances(made, "nobody") == {}
        [auth] = await made.actions.overview.services("auth")
        assert (auth.deployment, auth.last) == (None, None)
        shown = msgspec.to_builtins(overview._service(auth, {}))
        assert shown["versions"][0]["share"] == 100.0
        assert shown["versions"][0]["errorPercent"] is None
