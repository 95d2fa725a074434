"""What operators may do with the gateway itself: events, audit, tokens, freeze, upgrade."""

import os

import msgspec
from msgspec.structs import replace

from gateway.actions.access import Actor, Desk, FreezeState
from gateway.actions.bodies import CreateToken, Freeze
from gateway.actions.problems import conflict, not_found
from gateway.actions.tokens import new_token, record_of
from gateway.store.api import Page
from gateway.store.records import AuditRecord, EventRecord, TokenRecord


class WorkerSeen(msgspec.Struct, frozen=True):
    """One worker. applied: number of the snapshot it serves by."""

    slot: int
    pid: int
    applied: int


class GatewayInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The control process in charge."""

    pid: int
    epoch: int
    release: str
    workers: list[WorkerSeen]
    frozen: bool


class GatewayActions(Desk):
    """Everything about the gateway itself."""

    async def gateway_info(self) -> GatewayInfo:
        """Return the process in charge and its workers."""
        return GatewayInfo(
            pid=os.getpid(),
            epoch=self._store.epoch,
            release=self._release,
            workers=[WorkerSeen(worker.slot, worker.pid, worker.applied) for worker in self._hub.workers()],
            frozen=(await self.get_freeze()).frozen,
        )

    async def upgrade(self, actor: Actor) -> GatewayInfo:
        """Hand over to a control started from the code now on disk. Returns what is known of it."""
        info = await self.gateway_info()
        async with self._change(actor, "gateway.upgrade", "", {"from": info.pid}):
            pass
        return replace(info, pid=await self._upgrade(), epoch=info.epoch + 1)

    # -- what happened

    async def events(
        self, *, after: int | None = None, limit: int = 100, service: str | None = None
    ) -> list[EventRecord]:
        """Return events, oldest first. after: an event's id; None: the newest `limit` of all."""
        if after is None:
            after = max(0, await self._store.last_event_id() - limit)
        return await self._store.events(after=after, limit=limit, service=service)

    async def list_audit(
        self,
        *,
        cursor: str | None = None,
        limit: int = 50,
        actor: str | None = None,
        action: str | None = None,
    ) -> Page[AuditRecord]:
        """Return the audit trail, newest first."""
        return await self._store.audit(cursor=cursor, limit=limit, actor=actor, action=action)

    # -- freeze

    async def put_freeze(self, actor: Actor, body: Freeze) -> FreezeState:
        """Refuse starts and hold advances, or allow them again. Rollbacks always work."""
        state = FreezeState(frozen=body.frozen, reason=body.reason, actor=actor.name, at=self._now())
        details = {"frozen": body.frozen, "reason": body.reason}
        async with self._change(actor, "freeze.put", "", details) as tx:
            self._rollouts.freeze(tx, frozen=body.frozen)
            tx.set_meta("freeze", msgspec.json.encode(state))
            kind = "gateway.frozen" if body.frozen else "gateway.thawed"
            self._tell(tx, kind, actor, reason=body.reason)
        return state

    # -- tokens

    async def list_tokens(self) -> Page[TokenRecord]:
        """Return every token, revoked ones too; never the secret."""
        return Page(await self._store.tokens())

    async def create_token(self, actor: Actor, body: CreateToken) -> tuple[TokenRecord, str]:
        """Make a token. Returns its record and, this once, the token."""
        token = new_token()
        record = record_of(token, name=body.name, role=body.role, created_by=actor.name, now=self._now())
        details = {"name": body.name, "role": body.role}
        async with self._change(actor, "token.create", record.id, details) as tx:
            live = [each for each in await self._store.tokens() if each.revoked_at is None]
            if any(each.name == body.name for each in live):
                raise conflict(
                    f"a token named {body.name!r} exists: the audit trail tells people apart by it"
                )
            tx.put_token(record)
        return record, token

    async def revoke_token(self, actor: Actor, token_id: str) -> None:
        """Revoke a token, at once; revoking it again changes nothing."""
        async with self._change(actor, "token.revoke", token_id) as tx:
            tokens = {record.id: record for record in await self._store.tokens()}
            record = tokens.get(token_id)
            if record is None:
                raise not_found("token", token_id)
            if record.revoked_at is not None:
                return
            admins = [each for each in tokens.values() if each.role == "admin" and each.revoked_at is None]
            if admins == [record]:
                raise conflict("it is the last admin token; make another one first")
            tx.put_token(replace(record, revoked_at=self._now()))
