"""Series of rollouts: each service's newest deployment, the open one's evidence, and what was decided."""

from collections.abc import Iterable
from typing import Final, Protocol

from gateway.admin.exposition import Family, labels
from gateway.control.rollouts.counted import ACTIONS, REASONS, RolloutCounts
from gateway.core.rollout.state import Phase, Rollout
from gateway.store.records import DeploymentRecord

STATUSES: Final = ("pending", "testing", "rolling", "paused", "completed", "rolled_back", "failed")
HIGHEST: Final = 1e300
"""Odds beyond it are shown as this: infinity is no point of a graph."""
NO_STRATEGY: Final = "none"
"""Of a service that has had no deployment."""


class RolloutsWatched(Protocol):
    """What is known of the rollouts of this process."""

    @property
    def counts(self) -> RolloutCounts: ...
    def open_state(self, service: str) -> Rollout | None: ...


def deployment_families(services: Iterable[str], deployments: Iterable[DeploymentRecord]) -> list[Family]:
    """Return the state of each service's newest deployment. deployments: the newest ones."""
    status = Family(
        "gateway_deployment_status", "gauge", "1 for the status of each service's newest deployment."
    )
    percent = Family(
        "gateway_deployment_traffic_percent", "gauge", "Share of the newest deployment's new version."
    )
    newest = {deployment.service_name: deployment for deployment in deployments}
    for service in sorted({*services, *newest}):
        found = newest.get(service)
        series = labels(service=service, strategy=found.strategy if found is not None else NO_STRATEGY)
        for name in STATUSES:
            status.add(int(found is not None and found.status == name), f'{series},status="{name}"')
        percent.add(found.traffic_percent if found is not None else 0, labels(service=service))
    return [status, percent]


def evidence_families(services: Iterable[str], rollouts: RolloutsWatched) -> list[Family]:
    """Return what the judge holds of each service's open deployment; zeros where none is open."""
    step = Family("gateway_deployment_step", "gauge", "Step of the open deployment, from 1; 0: none.")
    statistic = Family(
        "gateway_deployment_statistic",
        "gauge",
        "Odds that its new version is the worse one; 0: none is open.",
    )
    limit = Family(
        "gateway_deployment_statistic_limit", "gauge", "What these odds must reach to have effect."
    )
    rate = Family(
        "gateway_deployment_error_percent", "gauge", "First attempts that failed in this step, by version."
    )
    asking = Family("gateway_deployment_asking", "gauge", "1 while the old version is being asked.")
    for service in services:
        state = rollouts.open_state(service)
        judged = state.judged if state is not None else None
        series = labels(service=service)
        step.add(state.step + 1 if state is not None else 0, series)
        statistic.add(min(judged.statistic, HIGHEST) if judged is not None else 0.0, series)
        limit.add(min(judged.limit, HIGHEST) if judged is not None else 0.0, series)
        rate.add(judged.new_rate if judged is not None else 0.0, f'{series},of="new"')
        rate.add(judged.old_rate if judged is not None else 0.0, f'{series},of="old"')
        asking.add(int(state is not None and state.phase is Phase.ASKING), series)
    return [step, statistic, limit, rate, asking]


def decision_families(services: Iterable[str], counts: RolloutCounts) -> list[Family]:
    """Return what was decided since this control process began."""
    decisions = Family("gateway_decisions", "counter", "Decisions recorded, by what they did.")
    rollbacks = Family("gateway_rollbacks", "counter", "Rollbacks, by what they came from.")
    asks = Family("gateway_asks", "counter", "How often the old version was asked.")
    shifts = Family("gateway_4xx_shifts", "counter", "Pauses and rollbacks for a shift of 4xx answers.")
    known = list(services)
    counts.forget(set(known))
    for service in known:
        series = labels(service=service)
        done = {action: counts.decisions.get((service, action), 0) for action in ACTIONS}
        decisions.add_each(done, "action", series)
        back = {reason: counts.rollbacks.get((service, reason), 0) for reason in REASONS}
        rollbacks.add_each(back, "reason", series)
        asks.add(done["ask"], series)
        shifts.add(counts.shifts.get(service, 0), series)
    return [decisions, rollbacks, asks, shifts]
