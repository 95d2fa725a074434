"""The audit chain: each row's hash covers the row and the hash before it; no change stays unseen."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.store.records import AuditEntry, AuditRecord, AuditReport
from gateway.store.tables import AUDIT

GENESIS: Final = "0" * 64
"""What the first row of all links to."""

CHECKPOINT: Final = "audit.checkpoint"
"""The action of the row that pruning leaves: it says which row was the last one pruned, and its hash."""


class Tail(msgspec.Struct, frozen=True):
    """The end of the chain: what the next row links to."""

    id: int = 0
    hash: str = GENESIS


class Checkpoint(msgspec.Struct, frozen=True):
    """The details of a checkpoint row."""

    through_id: int
    through_hash: str
    pruned: int


def link(entry: AuditEntry, tail: Tail) -> AuditRecord:
    """Return `entry` as the row that follows `tail`."""
    values = {name: getattr(entry, name) for name in entry.__struct_fields__}
    unsigned = AuditRecord(id=tail.id + 1, prev_hash=tail.hash, hash="", **values)
    return msgspec.structs.replace(unsigned, hash=digest(AUDIT.row(unsigned)))


def digest(row: Sequence[Any]) -> str:
    """Return the SHA-256, in hex, of a row of the audit table, its own `hash` left out.

    row: the values as stored, in the order of the table's columns. Empty ones are left out: a
    column that a later release adds must not unsign older rows.
    """
    named = zip(AUDIT.columns, row, strict=True)
    signed = {name: value for name, value in named if name != "hash" and value is not None}
    return hashlib.sha256(msgspec.json.encode(signed, order="deterministic")).hexdigest()


class Walk:
    """Goes along the chain, row by row, and says where it breaks first."""

    def __init__(self) -> None:
        self.count = 0
        self.tail = Tail()
        self.broken_at: int | None = None
        self.reason = ""
        self._start: Tail | None = None
        """What the first row claims to follow, if rows before it are gone."""
        self._checkpoint: Checkpoint | None = None

    def step(self, row: Sequence[Any]) -> bool:
        """Take the next row as stored. Returns False if it does not fit."""
        named = dict(zip(AUDIT.columns, row, strict=True))
        before = Tail(named["id"] - 1, named["prev_hash"])
        if self.count == 0 and before != Tail():
            self._start = before
        elif before.id != self.tail.id:
            return self._break(named["id"], f"row {self.tail.id + 1} is missing")
        elif before.hash != self.tail.hash:
            return self._break(named["id"], "does not link to the row before it")
        if digest(row) != named["hash"]:
            return self._break(named["id"], "its content does not match its hash")
        if named["action"] == CHECKPOINT:
            self._checkpoint = msgspec.json.decode(named["details"], type=Checkpoint)
        self.count += 1
        self.tail = Tail(named["id"], named["hash"])
        return True

    def report(self, last_id: int) -> AuditReport:
        """Return what the walk has found. last_id: the newest id ever given out."""
        return AuditReport(
            ok=self.finish(last_id),
            count=self.count,
            head_id=self.tail.id,
            head_hash=self.tail.hash,
            broken_at=self.broken_at,
            reason=self.reason,
        )

    def finish(self, last_id: int) -> bool:
        """Judge the whole: `last_id` is the newest id ever given out. Returns whether the chain is sound."""
        if self.broken_at is not None:
            return False
        if self._start is not None and not self._pruned_up_to(self._start):
            return self._break(
                self._start.id, "rows up to here are gone, and no checkpoint says they were pruned"
            )
        if self.tail.id != last_id:
            return self._break(self.tail.id + 1, f"rows {self.tail.id + 1} to {last_id} are missing")
        return True

    def _pruned_up_to(self, start: Tail) -> bool:
        mark = self._checkpoint
        return mark is not None and (mark.through_id, mark.through_hash) == (start.id, start.hash)

    def _break(self, at: int, reason: str) -> bool:
        self.broken_at, self.reason = at, reason
        return False
