"""Names into addresses: each an endpoint, refused ones left out, a failing name server changes nothing."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.control.upstreams.resolver import Resolver
from gateway.core.settings.targets import ANYWHERE, Listener, TargetRules
from tests.unit.control.console import Console, console

URL = "http://auth.internal:7200"


class Names:
    """A name server. What it is asked is kept."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str] | Exception] = {}
        self.asked: list[tuple[str, int]] = []

    async def look_up(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        found = self.addresses.get(host, [])
        if isinstance(found, Exception):
            raise found
        return found


class Room:
    def __init__(self, made: Console, rules: TargetRules) -> None:
        self.console = made
        self.names = Names()
        self.changed: list[str] = []
        self.resolver = Resolver(
            made.catalog, rules=rules, on_change=self.changed.append, lookup=self.names.look_up
        )

    def addresses(self) -> list[str]:
        """Return what workers were last told of the version's endpoints."""
        (version,) = self.console.links.newest.services["auth"].versions
        return [endpoint.address for endpoint in version.endpoints]


@asynccontextmanager
async def room(path: Path, url: str = URL, rules: TargetRules = ANYWHERE) -> AsyncIterator[Room]:
    async with console(path) as made:
        await made.register("v1", url=url)
        yield Room(made, rules)


async def test_each_address_of_a_name_is_an_endpoint(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.names.addresses["auth.internal"] = ["10.0.0.1", "10.0.0.2"]
        await it.resolver.resolve_all()
        assert it.names.asked == [("auth.internal", 7200)]
        assert it.addresses() == ["10.0.0.1", "10.0.0.2"]
        (version,) = it.console.links.newest.services["auth"].versions
        assert {(each.url, each.port) for each in version.endpoints} == {(URL, 7200)}
        assert len(it.changed) == 1


async def test_addresses_come_and_go_and_those_that_stay_keep_their_state(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.names.addresses["auth.internal"] = ["10.0.0.1", "10.0.0.2"]
        await it.resolver.resolve_all()
        version_id = it.changed[0]
        await it.console.pass_probe(version_id)
        kept = it.console.catalog.version(version_id).endpoints[f"{version_id}|{URL}|10.0.0.2"]
        it.names.addresses["auth.internal"] = ["10.0.0.2", "10.0.0.3"]
        await it.resolver.resolve_all()
        assert it.addresses() == ["10.0.0.2", "10.0.0.3"]
        endpoints = it.console.catalog.version(version_id).endpoints
        assert endpoints[kept.key] is kept
        healthy = {each.address: each.is_healthy for each in endpoints.values()}
        assert healthy == {"10.0.0.2": True, "10.0.0.3": False}, "a new address has to pass a probe first"


async def test_the_same_addresses_are_no_news(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        it.names.addresses["auth.internal"] = ["10.0.0.1"]
        await it.resolver.resolve_all()
        tables = len(it.console.links.tables)
        await it.resolver.resolve_all()
        assert len(it.console.links.tables) == tables
        assert len(it.changed) == 1


@pytest.mark.parametrize(
    "failure", [socket.gaierror(-3, "try again"), UnicodeError("label too long"), TimeoutError(), []]
)
async def test_a_name_server_that_fails_leaves_the_last_good_set(
    tmp_path: Path, failure: list[str] | Exception
) -> None:
    async with room(tmp_path) as it:
        it.names.addresses["auth.internal"] = ["10.0.0.1"]
        await it.resolver.resolve_all()
        it.names.addresses["auth.internal"] = failure
        for _ in range(3):
            await it.resolver.resolve_all()
        assert it.addresses() == ["10.0.0.1"]
        it.names.addresses["auth.internal"] = ["10.0.0.9"]
        await it.resolver.resolve_all()
        assert it.addresses() == ["10.0.0.9"]


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "fe80::1", "0.0.0.0"])
async def test_a_name_may_not_lead_where_a_url_may_not(tmp_path: Path, address: str) -> None:
    """Guards the check at use: a name is harmless when it is registered, and rebound afterwards."""
    async with room(tmp_path) as it:
        it.names.addresses["auth.internal"] = [address, "10.0.0.1"]
        await it.resolver.resolve_all()
        assert it.addresses() == ["10.0.0.1"]


async def test_only_allowed_networks_are_taken(tmp_path: Path) -> None:
    async with room(tmp_path, rules=TargetRules(("10.0.0.0/24",))) as it:
        it.names.addresses["auth.internal"] = ["10.0.0.1", "10.0.1.1"]
        await it.resolver.resolve_all()
        assert it.addresses() == ["10.0.0.1"]


async def test_a_numeric_url_is_never_looked_up(tmp_path: Path) -> None:
    async with room(tmp_path, url="http://127.0.0.1:7200") as it:
        await it.resolver.resolve_all()
        assert it.names.asked == []


async def test_a_name_may_not_lead_back_to_the_gateway(tmp_path: Path) -> None:
    rules = TargetRules(own=lambda: [Listener("0.0.0.0", 7200)])
    async with room(tmp_path, rules=rules) as it:
        it.names.addresses["auth.internal"] = ["127.0.0.1", "10.0.0.1"]
        await it.resolver.resolve_all()
        assert it.addresses() == ["10.0.0.1"]
