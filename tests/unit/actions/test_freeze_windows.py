"""A scheduled freeze holds what a person's does, says until when, and ends by itself."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.actions.bodies import Explain, Freeze, Promote, StartDeployment
from gateway.actions.problems import Problem
from gateway.core.settings.freeze_window import FreezeWindow
from gateway.errors import IllegalTransition
from tests.unit.control.console import ANN, ROOT, Console, console

NIGHT = (FreezeWindow(cron="* * * * *", duration=3_600_000, reason="inventory"),)
"""In force whenever it is."""


async def refused(work: Any) -> str:
    with pytest.raises((Problem, IllegalTransition)) as caught:
        await work
    return str(caught.value)


async def under_way(made: Console) -> str:
    await made.two_versions()
    record = await made.start(config={"steps": [10, {"percent": 50}, 100]})
    await made.settle()
    return record.id


async def test_no_rollout_starts_and_the_refusal_names_the_window_and_its_end(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        await made.two_versions()
        made.rollouts.schedule.windows = NIGHT
        said = await refused(made.start())
        assert "inventory" in said
        assert "until 20" in said
        assert "UTC" in said
        seen = await made.actions.gateway.get_freeze()
        assert (seen.frozen, seen.actor, seen.until is not None) == (True, "schedule", True)
        assert (seen.windows[0].in_force, seen.windows[0].reason) == (True, "inventory")
        made.rollouts.schedule.windows = ()
        await made.start()
        assert not (await made.actions.gateway.get_freeze()).frozen


async def test_nothing_advances_and_everything_goes_back(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        deployment = await under_way(made)
        made.rollouts.schedule.windows = NIGHT
        promote = made.actions.deployments.promote(ANN, deployment, Promote())
        assert "inventory" in await refused(promote), "even before the next tick"
        await made.actions.deployments.pause(ANN, deployment, Explain())
        await made.actions.deployments.resume(ANN, deployment, Explain())
        await made.actions.deployments.rollback(ANN, deployment, Explain())
        await made.settle()
        assert made.weights() == {"v1": 100, "v2": 0}


async def test_its_end_lets_rollouts_go_on(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        deployment = await under_way(made)
        made.rollouts.schedule.windows = NIGHT
        await refused(made.actions.deployments.promote(ANN, deployment, Promote()))
        made.rollouts.schedule.windows = ()
        await made.actions.deployments.promote(ANN, deployment, Promote())
        await made.settle()
        assert made.weights() == {"v1": 50, "v2": 50}


async def test_a_person_cannot_thaw_what_is_scheduled(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        deployment = await under_way(made)
        made.rollouts.schedule.windows = NIGHT
        seen = await made.actions.gateway.put_freeze(ROOT, Freeze(frozen=False))
        assert seen.frozen
        state = made.rollouts.state_of(deployment)
        assert state is not None
        assert state.frozen


async def test_a_service_may_have_its_own(tmp_path: Path) -> None:
    async with console(tmp_path) as made:
        deployment = await under_way(made)
        await made.register("v1", service="basket")
        entry = made.catalog.services["basket"].record
        made.catalog.put_service(replace(entry, settings=replace(entry.settings, freeze_windows=NIGHT)))
        await made.actions.deployments.promote(ANN, deployment, Promote())
        basket = msgspec.convert({"serviceName": "basket", "toVersion": "v2"}, StartDeployment)
        assert "inventory" in await refused(started(made, basket))
        seen = await made.actions.gateway.get_freeze()
        assert not seen.frozen
        assert [(each.service, each.in_force) for each in seen.windows] == [("basket", True)]


async def started(made: Console, body: StartDeployment) -> None:
    await made.register("v2", service=body.service_name)
    await made.actions.deployments.start(ANN, body)
