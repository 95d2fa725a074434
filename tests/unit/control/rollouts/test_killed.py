"""Control killed at every commit, between a commit and its act, and between an act and its event.

The real loop, store and drains in a scripted world: wherever the kill, it ends as if it had not been.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.rollout.events import Complete, Order, Pause, PromoteFull, Resume, Rollback, SetPercent
from gateway.core.rollout.plan import HookKind, Strategy
from gateway.core.rollout.state import Phase, Rollout
from tests.effort import effort
from tests.unit.control.mortal import Fate, Killed, MortalWorld

RATE = 60
"""Requests a second."""
MANY = 400
"""A script that takes more looks than this does not end."""


class Operator(msgspec.Struct, frozen=True):
    """Somebody who gives one order once the rollout looks a certain way, and again until it is on record."""

    when: Callable[[Rollout], bool]
    order: Order


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What the world is like, and what people do."""

    name: str
    ends: str
    strategy: Strategy = "canary"
    settings: dict[str, Any] = {}
    hooks: tuple[HookKind, ...] = ()
    refused_hook: str = ""
    gate: str = ""
    """Why the new version does not pass it."""
    smoke: str = ""
    """Why the smoke tests after the switch fail."""
    errors: float = 0.0
    """Of the new version, as a fraction."""
    rate: int = RATE
    operators: tuple[Operator, ...] = ()
    undo: bool = False
    """Once it is over, go back by a new rollout."""


def at_percent(percent: int) -> Callable[[Rollout], bool]:
    return lambda state: state.percent == percent and state.applied and state.elapsed_ms >= 1_000


def is_paused(state: Rollout) -> bool:
    return state.phase is Phase.PAUSED


SETTINGS: dict[Strategy, dict[str, Any]] = {
    "canary": {"steps": (10, 100), "step_interval": 2_000, "min_requests": 5},
    "blue-green": {"bake_time": 2_000, "min_requests": 5},
    "immediate": {"bake_time": 2_000, "min_requests": 5},
}


def scripts() -> list[Script]:
    made = []
    for strategy in SETTINGS:
        first = 10 if strategy == "canary" else 100
        pause = (Operator(at_percent(first), Pause("pauser")), Operator(is_paused, Resume("resumer")))
        revert = (Operator(at_percent(first), Rollback("reverter", "had enough")),)
        made += [
            Script(name=f"{strategy} good", strategy=strategy, ends="completed"),
            Script(name=f"{strategy} bad", strategy=strategy, ends="rolled_back", errors=0.5),
            Script(name=f"{strategy} paused", strategy=strategy, ends="completed", operators=pause),
            Script(name=f"{strategy} rolled back", strategy=strategy, ends="rolled_back", operators=revert),
            Script(name=f"{strategy} undone", strategy=strategy, ends="completed", undo=True),
        ]
    return [
        *made,
        Script(name="undecided", ends="paused", rate=10),
        Script(name="gate fails", ends="failed", gate="the health check failed"),
        Script(name="smoke fails", strategy="immediate", ends="rolled_back", smoke="status 500"),
        Script(
            name="asked and allowed",
            ends="completed",
            hooks=("confirm-start", "during-step", "confirm-promote"),
        ),
        Script(
            name="rollback vetoed",
            ends="paused",
            errors=0.5,
            hooks=("on-rollback",),
            refused_hook="on-rollback",
        ),
        Script(
            name="by hand",
            ends="completed",
            operators=(
                Operator(at_percent(10), SetPercent("setter", 30)),
                Operator(at_percent(30), PromoteFull("promoter")),
                Operator(at_percent(100), Complete("completer")),
            ),
        ),
    ]


async def play(script: Script, path: Path, kill_at: int = -1) -> tuple[dict[str, Any], Fate]:
    """Play a script to its end; return what came of it, and how many points there were."""
    fate = Fate(kill_at)
    world = MortalWorld(path, fate, refused_hook=script.refused_hook)
    world.checks.gate_reason, world.checks.smoke_reason = script.gate, script.smoke
    await world.open()
    await world.rollouts.tick()
    fate.is_told = True
    try:
        for _ in range(MANY):
            is_over = False
            try:
                is_over = await act(world, script)
                await world.settle()
            except Killed:
                pass
            if fate.is_dead:
                await world.revive()
                await world.settle()
            elif is_over:
                fate.is_told = False
                await world.rollouts.tick()  # the last news goes out
                return await world.outcome(), fate
        raise AssertionError(f"{script.name}, killed {fate.where}: does not end")
    finally:
        await world.close()


async def act(world: MortalWorld, script: Script) -> bool:
    """Do what the script says comes next. Returns whether nothing does."""
    known = {record.id: record for record in (await world.store.deployments(limit=50)).items}
    settings = {**SETTINGS[script.strategy], **script.settings}
    if "first" not in known:
        await world.start(script.strategy, deployment="first", hooks=script.hooks, **settings)
        return False
    state = world.rollouts.state_of("first")
    if state is not None and state.is_open:
        return await go_on(world, script, state)
    if script.undo and "second" not in known:
        await world.start("immediate", old="v2", new="v1", deployment="second", **SETTINGS["immediate"])
        return False
    state = world.rollouts.state_of("second")
    if state is not None and state.is_open:
        await second(world, script)
        return False
    return True


async def go_on(world: MortalWorld, script: Script, state: Rollout) -> bool:
    """Give the order that is due, or let a second pass. Returns whether a person is waited for in vain."""
    decisions = (await world.store.decisions("first", limit=500)).items
    heard = {row.actor for row in decisions}
    waiting = [operator for operator in script.operators if operator.order.actor not in heard]
    if waiting and waiting[0].when(state):
        async with world.store.transaction() as tx:
            world.rollouts.order(tx, "first", waiting[0].order)
        return False
    if state.phase is Phase.PAUSED and not waiting:
        return True
    await second(world, script)
    return False


async def second(world: MortalWorld, script: Script) -> None:
    """Let a second of traffic pass, as the weights are."""
    generation = world.catalog.services["auth"].generation
    for version in world.catalog.versions.values():
        answers = script.rate * version.weight // 100
        errors = round(answers * script.errors) if version.id == "v2" else 0
        if answers:
            world.worker.serve(version.id, generation, version.weight * 100, answers, errors)
    world.worker.report(world.tally)
    world.now += 1
    await world.rollouts.tick()


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.name)
async def test_killed_at_any_point_it_ends_as_if_it_had_not_been(script: Script, tmp_path: Path) -> None:
    expected, fate = await play(script, tmp_path / "whole")
    assert expected["deployments"]["first"][0] == script.ends
    assert fate.passed >= 5
    stride = effort(3, 1)
    for kill_at in range(random.randrange(stride), fate.passed, stride):
        found, killed = await play(script, tmp_path / f"{kill_at}", kill_at)
        assert killed.where, "it was killed"
        assert found == expected, f"killed {killed.where} (point {kill_at} of {fate.passed})"
