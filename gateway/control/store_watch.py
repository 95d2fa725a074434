"""Looks after the store: is the file there, is it whole, and does the audit trail go on where it was.

How far the trail had come is written beside the store (`audit.head`), so that a file which was replaced,
cut back or lost while nobody ran is noticed at the next start.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway.errors import StaleEpoch, StoreError
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import AuditEntry, AuditReport

log = get_logger(component="store")

LOOK_S: Final = 5.0
"""How soon a file that is gone is noticed, and how far behind the head's file may be."""
DAMAGE_S: Final = 86_400.0
HEAD_NAME: Final = "audit.head"
PIECE_BYTES: Final = 256 * 1024
BROKEN: Final = "audit.broken"
"""The action of the row that says where the trail before it ended, and under which name that is kept."""


class Head(msgspec.Struct, frozen=True):
    """How far the audit trail has come: its newest row's id, which counts them, and its hash."""

    id: int = 0
    hash: str = ""


class AuditState(msgspec.Struct, frozen=True):
    """Whether the audit trail is sound. row: the first that is not, or that is missing."""

    ok: bool = True
    row: int | None = None
    reason: str = ""


class StoreWatch:
    """Runs beside everything that writes."""

    def __init__(self, store: Store, folder: Path, now: Callable[[], datetime]) -> None:
        """folder: the store's."""
        self.audit = AuditState()
        self._store = store
        self._file = folder / HEAD_NAME
        self._now = now
        self._written = Head()
        self._misplaced = ""
        self._damaged = ""

    @property
    def problem(self) -> str:
        """What is wrong with the file; empty: nothing."""
        return self._damaged or self._misplaced

    # -- the audit trail

    async def begin(self) -> None:
        """Compare the trail with how far it had come. A trail that ended otherwise is noted in the new one.

        Raises StoreError.
        """
        noted = await self._store.meta(BROKEN)
        if noted:
            self.audit = msgspec.json.decode(noted, type=AuditState)
        known = self._read_head()
        reason = await self._mismatch(known)
        if reason and self.audit.row != known.id:
            await self._break(AuditState(ok=False, row=known.id, reason=reason), known)
        if not self.audit.ok:
            log.error("audit_broken", row=self.audit.row, reason=self.audit.reason)
        await self.write_head()

    async def _mismatch(self, known: Head) -> str:
        """Return why the trail does not hold the row it had come to; empty if it does."""
        if not known.id:
            return ""
        head = await self._head()
        if head.id < known.id:
            return f"the audit trail ends at row {head.id}; it had come to row {known.id}"
        row = await self._store.audit_row(known.id)
        if row is not None and row.hash != known.hash:
            return f"row {known.id} of the audit trail is not the one that was written"
        return ""

    async def _break(self, state: AuditState, known: Head) -> None:
        """Note in the trail that it does not go on from where it was."""
        self.audit = state
        details = {"lastId": known.id, "lastHash": known.hash, "reason": state.reason}
        entry = AuditEntry(at=self._now(), actor="gateway", action=BROKEN, resource="audit", details=details)
        async with self._store.transaction() as tx:
            tx.add_audit(entry)
            tx.set_meta(BROKEN, msgspec.json.encode(state))

    async def verified(self) -> AuditReport:
        """Walk along the whole trail, and remember what was found. Raises StoreError."""
        report = await self._store.verify_audit()
        if not report.ok:
            self.audit = AuditState(ok=False, row=report.broken_at, reason=report.reason)
            log.error("audit_broken", row=report.broken_at, reason=report.reason)
        return report

    async def acknowledge(self, entry: AuditEntry) -> AuditState:
        """Note that somebody has looked into the break, and who. Raises StoreError."""
        async with self._store.transaction(anywhere=True) as tx:
            tx.add_audit(entry)
            tx.set_meta(BROKEN, b"")
        self.audit = AuditState()
        return self.audit

    async def _head(self) -> Head:
        newest = (await self._store.audit(limit=1)).items
        return Head(newest[0].id, newest[0].hash) if newest else Head()

    def _read_head(self) -> Head:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Head)
        except FileNotFoundError:
            return Head()
        except (OSError, msgspec.MsgspecError) as exc:
            log.error("audit_head_unreadable", file=str(self._file), reason=str(exc))
            return Head()

    async def write_head(self) -> None:
        """Write down how far the trail has come. Raises StoreError; a full disk leaves what was written."""
        head = await self._head()
        if head == self._written:
            return
        draft = self._file.with_name(self._file.name + ".new")
        with suppress(OSError):
            draft.write_bytes(msgspec.json.encode(head))
            draft.replace(self._file)
            self._written = head

    async def backup(self) -> AsyncIterator[bytes]:
        """Return a copy of the store, piece by piece. Its file has no name any more when this returns."""
        target = self._file.with_name(f"backup-{uuid.uuid4()}.part")
        try:
            await self._store.backup(target)
            file = await asyncio.to_thread(target.open, "rb")
        finally:
            await asyncio.to_thread(partial(target.unlink, missing_ok=True))
        return _pieces(file)

    # -- the file

    async def run(self) -> None:
        """Look every few seconds, once a day at the whole file. Raises StaleEpoch: another is in charge."""
        loop = asyncio.get_running_loop()
        look_through_at = loop.time() + DAMAGE_S  # it was, at the start
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
                if loop.time() >= look_through_at:
                    look_through_at = loop.time() + DAMAGE_S
                    await self.look_through()
                await self.write_head()
            except StaleEpoch:
                raise
            except StoreError as exc:
                log.error("store_watch_failed", error=str(exc))

    async def look(self) -> None:
        """Notice a file that is gone, and write it anew. Raises StoreError if that cannot be done."""
        place = await self._store.place()
        if place == "kept":
            self._misplaced = ""
            return
        if place == "replaced":
            self._note_misplaced(
                "another file or database stands in the store's place: what is written now may be lost"
            )
            return
        self._note_misplaced("the store was deleted, and could not be put back")
        await self._store.put_back()
        self._misplaced = ""
        log.warning("store_put_back", reason="its file was deleted")

    async def look_through(self) -> None:
        """Have the whole file checked. Raises StoreError if it cannot be."""
        self._damaged = await self._store.damage()
        if self._damaged:
            log.error("store_damaged", reason=self._damaged, do="gateway backup, then restore an older copy")

    def _note_misplaced(self, what: str) -> None:
        if not self._misplaced:
            log.error("store_misplaced", reason=what)
        self._misplaced = what


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
