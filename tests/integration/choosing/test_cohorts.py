"""A user who has seen the new version keeps it as its share grows, whatever worker they come to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from bench.client import Connection, request_head
from bench.harness import World, held_connections

USERS: Final = 300
POLICIES: Final = 'sticky = { by = "cookie:uid", issue_cookie = true }'
STEPS: Final = {"steps": [10, 50, 100], "stepInterval": 600_000}

pytestmark = pytest.mark.timeout(180)


async def one_connection_each(world: World) -> list[Connection]:
    """Return a connection to every worker."""
    found: dict[int, Connection] = {}
    pids = await world.worker_pids()
    while len(found) < len(pids):
        before = [held_connections(pid, world.port) for pid in pids]
        connection = await Connection.open("127.0.0.1", world.port)
        await connection.exchange(request_head("GET", "/"))
        for pid, count in zip(pids, before, strict=True):
            if held_connections(pid, world.port) > count:
                found.setdefault(pid, connection)
    return list(found.values())


async def served_by(connection: Connection, fields: Sequence[tuple[str, str]]) -> str:
    answer = await connection.exchange(request_head("GET", "/", fields))
    assert answer.status == 200
    return answer.fields["x-version"]


async def who_sees(connections: Sequence[Connection], version: str) -> set[int]:
    """Return the users that `version` answers; every worker must say the same."""
    found: list[set[int]] = []
    for connection in connections:
        users = {user: [("Cookie", f"theme=dark; uid=u{user}")] for user in range(USERS)}
        seen = {user for user, fields in users.items() if await served_by(connection, fields) == version}
        found.append(seen)
    assert all(each == found[0] for each in found)
    return found[0]


async def set_percent(world: World, deployment: str, percent: int) -> None:
    await world.api("PUT", f"deployment/{deployment}/traffic", {"percent": percent})
    await world.until(world.workers_follow, "the share to be everywhere")


async def test_users_keep_the_new_version_as_its_share_grows(tmp_path: Path) -> None:
    async with World(tmp_path, workers=2, policies=POLICIES) as world:
        await world.add_version("v1.1")
        deployment = await world.start_rolling("v1.1", **STEPS)
        connections = await one_connection_each(world)
        early = await who_sees(connections, "v1.1")
        assert 0.04 * USERS < len(early) < 0.18 * USERS
        await set_percent(world, deployment, 50)
        late = await who_sees(connections, "v1.1")
        assert early < late
        assert 0.38 * USERS < len(late) < 0.62 * USERS
        await a_newcomer_is_given_a_cookie(connections)
        await another_release_picks_others(world, deployment, connections, early)


async def a_newcomer_is_given_a_cookie(connections: Sequence[Connection]) -> None:
    """Who has no cookie gets ours, and stays where it puts them."""
    for _ in range(20):
        answer = await connections[0].exchange(request_head("GET", "/"))
        cookie = answer.fields["set-cookie"].partition(";")[0]
        assert cookie.startswith("uid=")
        for connection in connections:
            assert await served_by(connection, [("Cookie", cookie)]) == answer.fields["x-version"]


async def another_release_picks_others(
    world: World, deployment: str, connections: Sequence[Connection], early: set[int]
) -> None:
    await world.api("POST", f"deployment/{deployment}/rollback")
    assert await world.settled(deployment) == "rolled_back"
    await world.add_version("v1.2")
    await world.start_rolling("v1.2", **STEPS)
    others = await who_sees(connections, "v1.2")
    assert others
    assert len(others & early) < len(early) / 2
