"""What a service says for itself: held for maintenance, falling back, limited, in panic, for testers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.client import Answer, Connection, request_head
from bench.harness import World
from tests.integration.choosing.peers import Upstream, give_weight, register, upstreams, version_health

pytestmark = pytest.mark.timeout(180)


async def get(world: World, path: str = "/", *, host: str = "choosing.test", **fields: str) -> Answer:
    """GET over a connection of its own. fields: names with `_` for `-`."""
    head = request_head(
        "GET", path, [(name.replace("_", "-"), value) for name, value in fields.items()], host=host
    )
    connection = await Connection.open("127.0.0.1", world.port)
    try:
        return await connection.exchange(head, timeout_s=60)
    finally:
        connection.close()


async def change(world: World, what: str) -> None:
    """Pause or resume the service."""
    await world.api("POST", f"services/auth/{what}")
    await world.until(world.workers_follow, f"{what} to be everywhere")


async def only(world: World, made: Sequence[Upstream]) -> None:
    """Give all traffic to these upstreams."""
    await register(world, made, weight=100)
    await give_weight(world, await world.version_id("v1.0"), 0)
    await world.until(world.workers_follow, "the weights to be everywhere")


async def test_a_paused_service_holds_requests_and_lets_them_go_in_order(tmp_path: Path) -> None:
    policies = "concurrency = { limit = 1, queue = 100, queue_timeout = 60000 }"
    async with World(tmp_path, workers=1, policies=policies) as world, upstreams("v2") as made:
        await only(world, made)
        await change(world, "pause")
        asked = []
        for number in range(20):
            asked.append(asyncio.ensure_future(get(world, f"/{number}")))
            await asyncio.sleep(0.02)  # so that there is an order
        done, _ = await asyncio.wait(asked, timeout=0.5)
        assert not done
        assert made[0].seen == []
        await change(world, "resume")
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {200}
        assert made[0].seen == [f"/{number}" for number in range(20)]


async def test_a_service_takes_so_many_at_once_and_sheds_the_rest_early(tmp_path: Path) -> None:
    policies = "concurrency = { limit = 4, queue = 3, queue_timeout = 20000 }"
    async with World(tmp_path, workers=1, policies=policies) as world, upstreams("v2") as made:
        await only(world, made)
        made[0].delay_s = 0.5
        answers = await asyncio.gather(*(get(world) for _ in range(20)))
        statuses = [answer.status for answer in answers]
        assert made[0].most_running <= 4
        assert set(statuses) == {200, 503}
        assert 7 <= statuses.count(200) <= 14  # more only where this machine took its time to ask
        shed = next(answer for answer in answers if answer.status == 503)
        assert shed.fields["retry-after"] == "1"
        assert shed.fields["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["none", "status", "version", "url"])
async def test_what_answers_when_no_version_is_usable(tmp_path: Path, kind: str) -> None:
    async with upstreams("elsewhere") as other, upstreams("v2") as made:
        policies = {
            "none": "",
            "status": 'fallback = { status = 418, body = "tea", content_type = "text/tea" }',
            "version": 'fallback = { version = "v1.0" }',
            "url": f'fallback = {{ url = "{other[0].url}" }}',
        }[kind]
        async with World(tmp_path, workers=1, policies=policies) as world:
            await only(world, made)
            assert (await get(world)).fields["x-version"] == "v2"
            made[0].is_healthy = False
            await world.until(lambda: is_unhealthy(world), "v2 to be unhealthy")
            await world.until(world.workers_follow, "the workers to know")
            answer = await get(world)
        if kind == "none":
            assert answer.status == 503
            assert answer.fields["retry-after"] == "1"
        elif kind == "status":
            assert (answer.status, answer.body, answer.fields["content-type"]) == (418, b"tea", "text/tea")
        else:
            assert answer.status == 200
            assert answer.fields["x-version"] == ("v1.0" if kind == "version" else "elsewhere")


async def is_unhealthy(world: World) -> bool:
    return bool((await version_health(world, "v2"))["healthStatus"] == "unhealthy")


async def test_in_panic_every_endpoint_is_used(tmp_path: Path) -> None:
    policies = 'panic = "use_all"'
    async with World(tmp_path, workers=1, policies=policies) as world, upstreams("v2", 2) as made:
        await only(world, made)
        for each in made:
            each.is_healthy = False
        await world.until(lambda: is_unhealthy(world), "v2 to be unhealthy")
        await world.until(world.workers_follow, "the workers to know")
        for each in made:
            each.seen.clear()
        for _ in range(40):
            answer = await get(world)
            assert (answer.status, answer.fields["x-version"]) == (200, "v2")
        assert all(each.seen for each in made)


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_version_header_is_for_testers_and_nobody_elses_gets_through(
    tmp_path: Path, allowed: bool
) -> None:
    network = "127.0.0.0/8" if allowed else "10.0.0.0/8"
    policies = f'version_header = {{ name = "X-Try", allow_from = ["{network}"] }}'
    async with World(tmp_path, workers=1, policies=policies) as world, upstreams("v2") as made:
        await only(world, made)
        answer = await get(world, X_Try="v1.0")
        assert answer.fields["x-version"] == ("v1.0" if allowed else "v2")
        assert (await get(world, X_Try="v2")).fields["x-version"] == "v2"
        unknown = await get(world, X_Try="v9")  # never silently another one, for whoever may ask
        assert unknown.status == (503 if allowed else 200)
        assert (await get(world)).fields["x-version"] == "v2"
        assert len(made[0].heads) >= 2
        assert all(b"x-try" not in head.lower() for head in made[0].heads)
