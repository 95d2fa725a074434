"""What a gateway that follows has served of an open rollout, as it is stored for the one in charge.

Totals and no windows: whatever is lost, comes twice or comes late, the newest row makes good.
"""

from collections.abc import Iterable, Sequence

import msgspec

from gateway.control.sums import CohortError, above, joined
from gateway.errors import StoreError
from gateway.link.totals import JudgedTotals
from gateway.store.records import ServedRecord

Cells = dict[str, dict[str, list[JudgedTotals]]]
"""Worker's incarnation -> version id -> what it has counted under each weight."""


class Word(msgspec.Struct, frozen=True, array_like=True):
    """How the two versions of a rollout look from one gateway."""

    begun: float = 0.0
    """When the process that says so began: one in charge of an earlier release goes by that alone."""
    usable: tuple[bool, bool] = (True, True)
    """The old version, the new one."""
    is_healthy: bool = True
    """Whether the new version has passed this gateway's own probes."""
    lately: int = 0
    """Answers of both in about the last ten seconds."""
    gate: str | None = None
    """Why the new version has not passed the probes that its test gate asks for here; empty: it has. None: it
    is not at its gate, or this is of a release that does not say."""


class Served(msgspec.Struct, frozen=True, array_like=True):
    """Of one rollout, since it was begun, by all workers of one process of a gateway."""

    cells: Cells
    errors: list[tuple[int, CohortError]]
    """Of sticky users, numbered from one; without those that were taken."""
    word: Word | None = None


def encoded(served: Served) -> bytes:
    """Return it as it is stored."""
    return msgspec.msgpack.encode(served)


def served_of(record: ServedRecord) -> Served:
    """Return what a row says. Raises StoreError naming whose it is."""
    try:
        return msgspec.msgpack.decode(record.data, type=Served)
    except msgspec.MsgspecError as exc:
        where = f"deployment {record.deployment_id}: what node {record.node} has served"
        raise StoreError(f"{where} does not load: {exc}") from exc


def together(cells: Cells, others: Cells) -> Cells:
    """Return both; of a worker that is in both, what is newer."""
    found = {incarnation: dict(versions) for incarnation, versions in cells.items()}
    for incarnation, versions in others.items():
        known = found.setdefault(incarnation, {})
        for version_id, theirs in versions.items():
            known[version_id] = joined(known.get(version_id, []), theirs)
    return found


def later(cells: Cells, floor: int) -> Cells:
    """Return what was counted under generations above `floor`."""
    return {
        incarnation: {version_id: above(theirs, floor) for version_id, theirs in versions.items()}
        for incarnation, versions in cells.items()
    }


def untaken(errors: Iterable[tuple[int, CohortError]], taken: int) -> list[tuple[int, CohortError]]:
    """Return the errors whose numbers are above `taken`."""
    return [each for each in errors if each[0] > taken]


def usable_by(words: Sequence[Word]) -> tuple[bool, bool]:
    """Return whether the old version and the new one count as usable.

    Unusable is what gateways with at least half of the recent traffic cannot use; without any traffic, what
    the first of them cannot.
    """
    whole = sum(word.lately for word in words)
    if not whole:
        return words[0].usable

    def by_most(side: int) -> bool:
        return 2 * sum(word.lately for word in words if not word.usable[side]) < whole

    return by_most(0), by_most(1)
