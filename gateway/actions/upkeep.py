"""What operators may do about the store: copy it, check its audit trail, say that a break was looked into."""

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from gateway.actions.access import Access, Actor, require_unscoped
from gateway.actions.bodies import Acknowledge
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.records import AuditEntry, AuditReport

log = get_logger(component="actions")


class AuditFound(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of the audit trail. row: the first that does not fit, or is missing."""

    ok: bool
    row: int | None = None
    reason: str = ""


class AuditSeen(Protocol):
    """What the watch knows of the trail."""

    @property
    def ok(self) -> bool: ...
    @property
    def row(self) -> int | None: ...
    @property
    def reason(self) -> str: ...


class Watch(Protocol):
    """Who looks after the store."""

    @property
    def audit(self) -> AuditSeen: ...
    async def verified(self) -> AuditReport: ...
    async def acknowledge(self, entry: AuditEntry) -> object: ...
    async def backup(self) -> AsyncIterator[bytes]: ...


class Upkeep:
    """Everything about the store itself."""

    def __init__(self, access: Access, watch: Watch) -> None:
        self._access = access
        self._watch = watch

    async def verify_audit(self) -> AuditReport:
        """Walk along the whole audit trail, now."""
        return await self._watch.verified()

    async def acknowledge_audit(self, actor: Actor, body: Acknowledge) -> AuditFound:
        """Say that a break of the trail was looked into; the trail itself stays as it is."""
        async with self._access.refusals(actor, "audit.acknowledge", ""):
            require_unscoped(actor, "acknowledging a break of the audit trail")
        seen = self._watch.audit
        details = {"note": body.note, "row": seen.row, "reason": seen.reason}
        await self._watch.acknowledge(self._access.entry(actor, "audit.acknowledge", "", details))
        return AuditFound(ok=self._watch.audit.ok)

    async def backup(self, actor: Actor) -> AsyncIterator[bytes]:
        """Return a copy of the store, piece by piece. A store that cannot be written can still be copied."""
        try:
            async with self._access.change(actor, "gateway.backup", ""):
                require_unscoped(actor, "a backup")
        except StoreError as exc:
            log.error("backup_not_audited", actor=actor.name, error=str(exc))
        return await self._watch.backup()
