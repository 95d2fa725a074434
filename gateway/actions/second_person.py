"""The two-person rule: what one person asks for, and another confirms.

It goes by effect, not by call: what sets weights by hand, or brings a version to all of the traffic without
the judge's word, is held; what returns traffic, or holds it where it is, never. The call is kept as it was
asked, and carried out as it was asked, by whoever asked: every rule is applied again then.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from gateway.actions.access import ROLES, Access, Actor, require_role, require_scope
from gateway.actions.problems import Problem, conflict, forbidden, not_found
from gateway.actions.tokens import is_live
from gateway.core.rollout.events import Event, SetPercent
from gateway.core.rollout.plan import Plan
from gateway.core.rollout.rollout import move
from gateway.core.rollout.state import Phase, Rollout
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.api import Page
from gateway.store.records import ApprovalRecord, ApprovalState, AuditRecord, EventRecord, Role, TokenRecord

log = get_logger(component="actions")

LIFE: Final = timedelta(minutes=15)
LISTS: Final = "`gateway approvals --all` lists what was asked, by whom, and what came of it"
ASK_AGAIN: Final = "whoever wants it asks again; `gateway approvals` lists what waits"
LEAST_STEP_MS: Final = 1_000
LEAST_REQUESTS: Final = 5
MOST_THRESHOLD: Final = 0.5
"""A canary with shorter steps, fewer requests or more errors allowed is not watched by anybody."""
INTERRUPTED: Final = "the gateway ended before it was carried out, so nothing was changed: ask again"
CARRYING: Final = timedelta(minutes=1)
"""For so long a confirmed call may still be carried out by another gateway, as far as this one knows."""
MOST_PENDING: Final = 20
"""Calls of one token that wait at once."""


def is_watched(plan: Plan) -> bool:
    """Return whether the judge has a say before the new version gets all the traffic.

    Not with a first step of 100 %, nor with settings that leave it nothing to say, or no time to say it.
    """
    rules = plan.rules
    before = [step for step in plan.steps if step.percent < 100]
    return (
        bool(before)
        and not plan.dry_run
        and all(step.interval_ms >= LEAST_STEP_MS for step in before)
        and rules.min_requests >= LEAST_REQUESTS
        and rules.error_threshold <= MOST_THRESHOLD
        and rules.is_error("500")
    )


def sets_share(state: Rollout, order: Event) -> bool:
    """Return whether an order sets the share by hand, or brings it to 100 %, now or once a webhook agrees.

    Raises IllegalTransition if it cannot be carried out.
    """
    after, _ = move(state, order, 0.0)
    if isinstance(order, SetPercent):
        return True
    waits = after.phase is Phase.CONFIRM_PROMOTE and after.next_percent == 100
    return waits or after.percent == 100 > state.percent


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it came: path under the base, body as bytes."""

    id: str
    action: str
    role: Role
    """The least that may make it."""
    method: str
    path: str
    body: bytes
    if_match: str | None
    idempotency_key: str | None


class Approvals:
    """Everything about calls that wait for a second person."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._under_way: set[str] = set()
        """Calls that are being carried out here."""

    async def ask(self, actor: Actor, asked: Asked, *, service: str, what: str) -> ApprovalRecord:
        """Keep a call until somebody else confirms it. The same call again is the same approval."""
        details = {"action": asked.action, "service": service, "what": what}
        async with self._access.change(actor, "approval.ask", asked.id, details) as tx:
            now = self._access.now()
            waiting = [
                each
                for each in await self._access.store.pending_approvals()
                if each.asked_token_id == actor.token_id and now < each.expires_at
            ]
            same = next((each for each in waiting if _is_same(each, asked)), None)
            if same is not None:
                details["repeated"] = same.id
                return same
            if len(waiting) >= MOST_PENDING:
                raise Problem(
                    429,
                    "Too Many Requests",
                    f"{MOST_PENDING} calls of {actor.name} wait for a second person already",
                    retry_after_s=60,
                )
            record = _record(actor, asked, service, what, now)
            tx.put_approval(record)
            self._access.add_event(tx, "approval.asked", actor, service, approval=record.id, text=what)
        return record

    async def list_all(
        self, *, state: ApprovalState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[ApprovalRecord]:
        """Return what was asked, newest first; of one state, as it is stored."""
        page = await self._access.store.approvals(state=state, cursor=cursor, limit=limit)
        return Page([self._as_of_now(each) for each in page.items], page.next)

    async def get(self, approval_id: str) -> ApprovalRecord:
        """Return one. Raises Problem 404."""
        record = await self._access.store.approval(approval_id)
        if record is None:
            raise not_found("approval", approval_id)
        return self._as_of_now(record)

    async def claim(self, actor: Actor, approval_id: str) -> tuple[ApprovalRecord, Actor]:
        """Confirm a call: from now on nobody else can. Returns it, and who asked, as they may act now.

        Raises Problem 404, 403 for whoever is not a second person, 409 if it waits no more. `over` has to
        follow.
        """
        await self._settle(await self.get(approval_id))
        details: dict[str, Any] = {}
        async with self._access.change(actor, "approval.confirm", approval_id, details) as tx:
            record = await self.get(approval_id)
            details.update(askedBy=record.asked_by, action=record.action, service=record.service)
            if record.state != "pending":
                raise conflict(_refusal(record), LISTS)
            tokens = {each.id: each for each in await self._access.store.tokens()}
            self._require_second(actor, tokens.get(actor.token_id), record)
            asker = self._asker(tokens.get(record.asked_token_id), record, actor)
            claimed = replace(record, state="approved", decided_by=actor.name, decided_at=self._access.now())
            tx.put_approval(claimed)
            self._under_way.add(approval_id)  # before anybody can find it claimed
        return claimed, asker

    async def finish(
        self, record: ApprovalRecord, *, state: ApprovalState, status: int | None = None, outcome: str = ""
    ) -> ApprovalRecord:
        """Write down what came of a confirmed call. status: of its answer; outcome: why it was refused."""
        done = replace(record, state=state, status=status, outcome=outcome)
        async with self._access.store.transaction(anywhere=True) as tx:
            tx.put_approval(done)
            tx.add_event(
                EventRecord(
                    at=self._access.now(),
                    kind=f"approval.{state}",
                    service=record.service,
                    actor=record.decided_by or "",
                    data={"approval": record.id, "text": outcome or record.what, "askedBy": record.asked_by},
                )
            )
        return done

    def over(self, record: ApprovalRecord) -> None:
        """Nobody carries a call out any more: if `finish` was not reached, the audit trail knows the rest."""
        self._under_way.discard(record.id)

    async def run(self) -> None:
        """Find out, for as long as this runs, what became of calls that other gateways were carrying out when
        they ended.
        """
        while True:
            await asyncio.sleep(CARRYING.total_seconds())
            try:
                await self.recover()
            except StoreError as exc:
                log.warning("approvals_not_settled", error=str(exc))

    async def recover(self) -> None:
        """Find out what became of calls that a former control was carrying out when it ended.

        Of what another gateway may be carrying out it is found out later.
        """
        cursor: str | None = None
        while True:
            page = await self._access.store.approvals(state="approved", cursor=cursor)
            for record in page.items:
                await self._settle(record)
            if (cursor := page.next) is None:
                return

    async def _settle(self, record: ApprovalRecord) -> None:
        """Write down what became of a confirmed call that nobody carries out any more.

        A change and its row of the audit trail are one transaction: no row, no change.
        """
        if record.state != "approved" or self._may_be_under_way(record):
            return
        row = await self._row_of(record)
        if row is not None and row.allowed:
            await self.finish(record, state="carried_out")
        elif row is not None:
            await self.finish(record, state="failed", outcome=str(row.details.get("reason", "")))
        else:
            await self.finish(record, state="failed", outcome=INTERRUPTED)

    def _may_be_under_way(self, record: ApprovalRecord) -> bool:
        """Whether somebody still carries a confirmed call out: here, or at another gateway."""
        if record.id in self._under_way:
            return True
        decided_at = record.decided_at
        is_new = decided_at is not None and self._access.now() < decided_at + CARRYING
        return self._access.store.is_shared and is_new

    async def _row_of(self, record: ApprovalRecord) -> AuditRecord | None:
        """Return what the audit trail has of a confirmed call."""
        cursor: str | None = None
        while True:
            page = await self._access.store.audit(actor=record.asked_by, cursor=cursor)
            for row in page.items:
                if row.details.get("approval") == record.id:
                    return row
                if record.decided_at is not None and row.at < record.decided_at:
                    return None
            if (cursor := page.next) is None:
                return None

    async def withdraw(self, actor: Actor, approval_id: str) -> ApprovalRecord:
        """Say no: whoever asked, or anybody who might confirm it."""
        async with self._access.change(actor, "approval.withdraw", approval_id) as tx:
            record = await self.get(approval_id)
            if record.state != "pending":
                raise conflict(_refusal(record), LISTS)
            if record.asked_token_id != actor.token_id:
                self._require_rights(actor, record)
            now = self._access.now()
            done = replace(record, state="withdrawn", decided_by=actor.name, decided_at=now)
            tx.put_approval(done)
        return done

    def _as_of_now(self, record: ApprovalRecord) -> ApprovalRecord:
        is_over = record.state == "pending" and self._access.now() >= record.expires_at
        return replace(record, state="expired") if is_over else record

    def _require_rights(self, actor: Actor, record: ApprovalRecord) -> None:
        needed: Role = max(record.role, "deployer", key=ROLES.index)
        require_role(actor, needed, "confirming this")
        require_scope(actor, record.service)

    def _require_second(self, actor: Actor, token: TokenRecord | None, record: ApprovalRecord) -> None:
        """Refuse whoever is the person that asked, by token or by owner; Problem 403.

        A token that the first person has made since would be the first person's, too.
        """
        self._require_rights(actor, record)
        if token is None or token.id == record.asked_token_id or token.owned_by == record.asked_owner:
            raise forbidden(
                f"{record.asked_owner} asked for it: a second person's token has to confirm it, "
                "one of another owner",
                LISTS,
            )
        if token.created_by in (record.asked_by, record.asked_owner) and token.created_at > record.created_at:
            raise forbidden(
                f"{record.asked_by} made this token after asking: it is not a second person's", LISTS
            )

    def _asker(self, token: TokenRecord | None, record: ApprovalRecord, second: Actor) -> Actor:
        """Return who asked, with the rights of the moment. Raises Problem 409 if there are none any more."""
        if token is None or not is_live(token, self._access.now()):
            raise conflict(f"the token of {record.asked_by}, who asked, is revoked or has expired", ASK_AGAIN)
        if ROLES.index(token.role) < ROLES.index(record.role):
            raise conflict(f"{record.asked_by}, who asked, is only {token.role} by now", ASK_AGAIN)
        return Actor(
            name=token.name,
            role=token.role,
            token_id=token.id,
            services=token.services,
            address=record.address,
            user_agent=record.user_agent,
            approved_by=second.name,
            approval=record.id,
        )


def _is_same(record: ApprovalRecord, asked: Asked) -> bool:
    return (record.method, record.path, record.body, record.if_match, record.idempotency_key) == (
        asked.method,
        asked.path,
        asked.body,
        asked.if_match,
        asked.idempotency_key,
    )


def _record(actor: Actor, asked: Asked, service: str, what: str, now: datetime) -> ApprovalRecord:
    return ApprovalRecord(
        id=asked.id,
        action=asked.action,
        service=service,
        what=what,
        role=asked.role,
        method=asked.method,
        path=asked.path,
        body=asked.body,
        if_match=asked.if_match,
        idempotency_key=asked.idempotency_key,
        asked_by=actor.name,
        asked_owner=actor.owner or actor.name,
        asked_token_id=actor.token_id,
        address=actor.address,
        user_agent=actor.user_agent,
        created_at=now,
        expires_at=now + LIFE,
    )


def _refusal(record: ApprovalRecord) -> str:
    """Return why an approval waits no more."""
    match record.state:
        case "expired":
            return f"it had to be confirmed by {record.expires_at:%H:%M:%S} UTC; ask again"
        case "approved":
            return f"{record.decided_by} has confirmed it, and it is being carried out"
        case "withdrawn":
            return f"{record.decided_by} has said no to it"
        case _:
            return f"{record.decided_by} has confirmed it already: {record.outcome or 'it was carried out'}"
