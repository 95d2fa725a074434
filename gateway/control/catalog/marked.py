"""At a start: the store's rows as they are in force, by the marks that workers carry of unstored rollbacks.

What makes a mark is `rollouts/unstored.py`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from gateway.link.snapshot import Mark
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord

WHOLE: Final = 100
"""What the weights of a service's versions add up to while a deployment is open, in percent."""


def as_marked(record: DeploymentRecord, mark: Mark | None) -> DeploymentRecord:
    """Return an open deployment's row as the mark has it."""
    return replace(record, traffic_percent=0) if mark is not None and mark.order == "rollback" else record


def added_up(
    deployments: Iterable[DeploymentRecord], versions: Iterable[VersionRecord]
) -> list[VersionRecord]:
    """Return versions with the weights of their open deployment, where theirs do not add up to 100.

    What went ahead of the store may be in some of the rows all the same: whoever stores what a version's
    probes come to writes its weight, too, as it is in force.
    """
    known = list(versions)
    totals: Counter[str] = Counter()
    for version in known:
        totals[version.service_name] += version.weight
    torn = [record for record in deployments if totals[record.service_name] != WHOLE]
    weights: dict[str | None, int] = {record.to_version_id: record.traffic_percent for record in torn}
    weights.update((record.from_version_id, WHOLE - record.traffic_percent) for record in torn)
    return [_weighted(record, weights) for record in known]


def lowered(
    marks: Iterable[Mark],
    deployments: Iterable[DeploymentRecord],
    services: Mapping[str, ServiceRecord],
    versions: Iterable[VersionRecord],
) -> tuple[dict[str, ServiceRecord], list[VersionRecord]]:
    """Return services and versions with all traffic back where a rollback was done and not stored."""
    marked = {mark.deployment for mark in marks if mark.order == "rollback"}
    undone = [record for record in deployments if record.id in marked]
    weights: dict[str | None, int] = {record.to_version_id: 0 for record in undone}
    weights.update((record.from_version_id, 100) for record in undone)
    names = {record.service_name for record in undone}
    return (
        {
            name: replace(record, generation=record.generation + 1) if name in names else record
            for name, record in services.items()
        },
        [_weighted(record, weights) for record in versions],
    )


def _weighted(record: VersionRecord, weights: Mapping[str | None, int]) -> VersionRecord:
    if record.id not in weights:
        return record
    if not weights[record.id]:
        return replace(record, weight=0)
    return replace(record, weight=weights[record.id], draining=False, drained=False, drain_deadline=None)
