"""What is stored of rollouts: at a start, and after other gateways have written."""

from collections.abc import Collection, Iterable
from typing import Final

from gateway.control.rollouts.rows import progress_of
from gateway.control.rollouts.running import Running
from gateway.control.tally import Tally
from gateway.store.api import Store
from gateway.store.records import DeploymentRecord

TALLY: Final = "tally"
"""Under this name the totals are stored."""
RECENT: Final = 200
"""How many of the newest deployments are looked at, at a start, for ends that were not tidied up."""

Stored = dict[str, DeploymentRecord | None]
"""Deployments by id; None: it is stored no more."""


async def changed(
    store: Store, known: Iterable[Running], opened: Iterable[DeploymentRecord], names: Collection[str] | None
) -> Stored:
    """Return what others may have changed of these services' deployments, or of all, as it is stored.

    known: those at work here. opened: the open ones, as stored. Raises StoreError.
    """
    stored: Stored = {record.id: record for record in opened}
    for running in known:
        if running.record.id not in stored and (names is None or running.state.service in names):
            stored[running.record.id] = await store.deployment(running.record.id)
    return stored


async def load_counts(store: Store, tally: Tally) -> None:
    """Let `tally` go on from what was stored: all totals, and those stored later with rollouts' evidence.

    Raises StoreError.
    """
    found = [progress_of(record) for record in await unfinished(store)]
    parts = [progress.counted for progress in found if progress is not None]
    tally.load(await store.meta(TALLY) or b"", parts)


async def unfinished(store: Store) -> list[DeploymentRecord]:
    """Return the open deployments, and recent ones, whose end may not be tidied up."""
    found = {record.id: record for record in await store.open_deployments()}
    for record in (await store.deployments(limit=RECENT)).items:
        if record.state:
            found.setdefault(record.id, record)
    return list(found.values())
