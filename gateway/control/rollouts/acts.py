"""Carrying out what the rollout machine asks for: each act ends in the event to report.

An act may be issued again after a crash: each is idempotent, or carries a number that stays the same.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

from gateway.control.rollouts.elsewhere import Elsewhere
from gateway.control.rollouts.webhooks import Answer, Message, Webhooks
from gateway.control.upstreams.drains import Drains
from gateway.core.rollout.commands import (
    Act,
    AskHook,
    CallShutdownUrl,
    RunGate,
    RunSmoke,
    SetWeights,
    StartDrain,
)
from gateway.core.rollout.events import (
    DrainDone,
    Event,
    GateFailed,
    GatePassed,
    HookAnswered,
    ShutdownDone,
    SmokeReported,
    WeightsApplied,
)
from gateway.core.rollout.state import Rollout
from gateway.core.settings.smoke import SmokeSettings
from gateway.log import get_logger
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord

log = get_logger(component="rollouts")

APPLY_TIMEOUT_S: Final = 5.0
"""A worker that has not applied a table by then is being replaced."""


class CatalogView(Protocol):
    """What rollouts need of the catalog."""

    def service_record(self, name: str) -> ServiceRecord: ...
    def version_record(self, version_id: str) -> VersionRecord: ...
    def put_service(self, record: ServiceRecord) -> None: ...
    def put_version(self, record: VersionRecord) -> None: ...
    def put_ahead(self, service: ServiceRecord | None, versions: Iterable[VersionRecord]) -> None: ...
    def caught_up(self, service: str) -> None: ...
    def publish(self, names: Iterable[str]) -> int: ...
    def is_usable(self, version_id: str) -> bool: ...


class HubView(Protocol):
    """What rollouts need of the links."""

    async def applied(self, number: int, timeout_s: float) -> list[int]: ...
    async def carry(self, number: int, timeout_s: float) -> bool: ...


class Checks(Protocol):
    """What gates are made of."""

    async def gate(self, version_id: str) -> str:
        """Probe until healthy. Returns why it is not; empty if it is."""

    async def smoke(
        self, version_id: str, tests: SmokeSettings | None, deployment_id: str | None = None
    ) -> str:
        """Run smoke tests (None: the version's own). Returns the first complaint; empty if all passed."""

    async def shut_down(self, version_id: str, deployment_id: str) -> None:
        """POST the version's shutdown url, if it has one, until it is taken or given up."""


class Acts:
    """What a rollout can have done."""

    def __init__(
        self,
        catalog: CatalogView,
        hub: HubView,
        checks: Checks,
        drains: Drains,
        webhooks: Webhooks,
        elsewhere: Elsewhere | None = None,
        *,
        node: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        """node: what this gateway is called among those that share the store; empty: nobody shares it."""
        self._catalog = catalog
        self.hub = hub
        self._checks = checks
        self._drains = drains
        self.webhooks = webhooks
        self.elsewhere = elsewhere
        self._node = node
        self._wall = wall
        self._gathered: tuple[set[str], asyncio.Future[int]] | None = None
        """Services whose weights go out in a moment, and the number of the table they go out in."""

    async def carry_out(self, record: DeploymentRecord, state: Rollout, act: Act) -> Event:
        """Do what `act` says. Returns the event to report."""
        match act:
            case SetWeights():
                return await self._set_weights(record, state, act)
            case RunGate():
                reason = await self._checks.gate(act.version)
                if not reason and self.elsewhere is not None:
                    reason = await self.elsewhere.gate(state)
                reason = reason or await self._smoke(state, act.version, act.smoke_tests)
                return GateFailed(reason) if reason else GatePassed()
            case RunSmoke():
                reason = await self._smoke(state, act.version, act.smoke_tests)
                return SmokeReported(act.serial, not reason, reason)
            case AskHook():
                answer = await self._ask(record, state, act)
                return HookAnswered(act.hook, act.ask, answer.allowed, answer.reason)
            case StartDrain():
                await self._drains.drain(act.version, act.timeout_ms)
                return DrainDone(act.version)
            case CallShutdownUrl():
                await self._checks.shut_down(act.version, state.id)
                return ShutdownDone()

    async def _set_weights(self, record: DeploymentRecord, state: Rollout, act: SetWeights) -> WeightsApplied:
        """Send out the weights that were committed with the state; wait until every live worker has them, on
        every gateway that lives.
        """
        for version in (act.old, act.new):
            if not self._catalog.version_record(version).draining:
                self._drains.call_back(version)
        generation = self._catalog.service_record(state.service).generation
        number = await self._publish(state.service)
        late = await self.hub.applied(number, APPLY_TIMEOUT_S)
        if late:
            log.warning("weights_late", service=state.service, deployment=state.id, slots=late)
        else:
            decided = record.updated_at.timestamp()
            after_ms = round((self._wall() - decided) * 1000, 1)
            log.info(
                "weights_live",
                service=state.service,
                deployment=state.id,
                percent=act.new_weight,
                after_ms=after_ms,
            )
        if self.elsewhere is not None:
            await self.elsewhere.barrier.passed(state.service, state.id)
        return WeightsApplied(act.serial, generation)

    async def _publish(self, service: str) -> int:
        """Send out a service's weights. Returns the table's number.

        What many rollouts ask for in the same moment, as at a tick, goes out as one table: workers build it
        once, not once for each.
        """
        if self._gathered is None:
            loop = asyncio.get_running_loop()
            self._gathered = set(), loop.create_future()
            loop.call_soon(self._publish_gathered)
        names, number = self._gathered
        names.add(service)
        return await asyncio.shield(number)

    def _publish_gathered(self) -> None:
        assert self._gathered is not None
        (names, number), self._gathered = self._gathered, None
        try:
            number.set_result(self._catalog.publish(names))
        except Exception as exc:  # for those who wait: nobody else would hear of it
            number.set_exception(exc)

    async def _smoke(self, state: Rollout, version: str, tests: bool | SmokeSettings) -> str:
        if tests is False:
            return ""
        chosen = tests if isinstance(tests, SmokeSettings) else None
        return await self._checks.smoke(version, chosen, state.id)

    async def _ask(self, record: DeploymentRecord, state: Rollout, act: AskHook) -> Answer:
        text = f"{act.hook}: {record.from_version} -> {record.to_version}"
        data = {**_about(record, state.percent), "step": state.step}
        asked_at = self._wall() if state.asked_at is None else state.asked_at
        message = Message(
            key=f"{state.id}:{act.hook}:{act.ask}",
            kind=act.hook,
            service=state.service,
            text=text,
            at=datetime.fromtimestamp(asked_at, UTC),
            data=data,
            node=self._node or None,
        )
        return await self.webhooks.ask(self._catalog.service_record(state.service).settings.webhooks, message)


def _about(record: DeploymentRecord, percent: int) -> dict[str, object]:
    return {
        "deploymentId": record.id,
        "fromVersion": record.from_version,
        "toVersion": record.to_version,
        "percent": percent,
    }
