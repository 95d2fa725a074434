"""Tokens, sessions and roles: who asks, and may they. Everything that is not allowed is refused.

Wrong tokens are limited per address, to bound what they cost and what they write to the audit trail; a right
token is never refused for the wrong ones that came from its address, so nobody can lock an operator out.
"""

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from gateway.actions.access import Actor
from gateway.actions.problems import Problem, forbidden
from gateway.actions.tokens import digest, is_live, new_token, record_of
from gateway.admin.ratelimit import SlidingWindow
from gateway.admin.sessions import Sessions, is_own_origin
from gateway.errors import StoreError
from gateway.log import get_logger
from gateway.store.api import Store
from gateway.store.records import AuditEntry, TokenRecord

log = get_logger(component="admin")

LOGIN_WINDOW_S: Final = 900.0
NOTE_S: Final = 0.25
"""How long a call waits for its token's use to be stored, at most."""
CLOSE_S: Final = 1.0
MAKE_ONE: Final = "`gateway token create NAME --role ROLE` makes a token, where an admin's is at hand"
USE_NOTED_EVERY: Final = timedelta(minutes=10)
"""How exact `lastUsedAt` is: a write for each request would be too much to know it better."""


def bearer_token(fields: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer …` (RFC 6750 §2.1), or None."""
    scheme, _, token = fields.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class Unauthorized(Problem):
    """401, with the challenge RFC 9110 §15.5.2 asks for."""

    def __init__(self, detail: str, *, error: str = "") -> None:
        super().__init__(401, "Unauthorized", detail, next_step=MAKE_ONE)
        self.challenge = 'Bearer realm="gateway"' + (f', error="{error}"' if error else "")


class Authenticator:
    """Turns an Authorization field into an Actor, and writes down who was refused."""

    def __init__(
        self,
        store: Store,
        *,
        failed_logins: int = 10,
        sessions: Sessions | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.refused_logins = 0
        """Logins refused beyond the limit: counted here, stored nowhere."""
        self._store = store
        self._sessions = sessions or Sessions(clock=clock)
        self._known: dict[str, TokenRecord] | None = None
        """By hash, as committed; None: not loaded yet. A login waits for no store that cannot answer."""
        self._uses: set[asyncio.Task[None]] = set()
        self._failed = SlidingWindow(failed_logins, LOGIN_WINDOW_S)
        self._clock = clock
        self._utc = utc

    @property
    def sessions(self) -> Sessions:
        """Return the browser sessions."""
        return self._sessions

    async def reread(self) -> None:
        """Know the tokens that another gateway has written. Raises StoreError."""
        self._known = {record.hash: record for record in await self._store.tokens()}

    def learn(self, record: TokenRecord) -> None:
        """Take a token's committed row."""
        if self._known is not None:
            self._known[record.hash] = record

    async def identify(self, fields: Mapping[str, str], address: str, *, is_safe: bool = True) -> Actor:
        """Return who asks, by token or by session. address: the peer's, without port.

        is_safe: the call changes nothing (RFC 9110 §9.2.1); one that may, by cookie, has to come from our own
        page. Raises Unauthorized (401) without a valid token, Problem 403 for another page's, 429 after too
        many wrong tokens from one address.
        """
        token = bearer_token(fields)
        agent = fields.get("user-agent", "")[:200]
        if token is not None:
            record = await self._find(token)
            if record is None:
                await self._refuse_login(address, agent)
                raise Unauthorized(
                    "the token is not known, has expired or been revoked", error="invalid_token"
                )
        else:
            record = await self._by_session(fields)
            if record is None:
                raise Unauthorized("this call needs a token: Authorization: Bearer gw_…")
            if not is_safe and not is_own_origin(fields):
                raise forbidden(
                    "a change by cookie has to come from this listener's own page",
                    "open the dashboard by the address you signed in at",
                )
        await self._note_use(record)
        return Actor(
            name=record.name,
            role=record.role,
            token_id=record.id,
            services=record.services,
            address=address,
            user_agent=agent,
            owner=record.owned_by,
        )

    async def is_valid(self, fields: Mapping[str, str]) -> bool:
        """Return whether the token still is one: for streams, which outlive their first check."""
        token = bearer_token(fields)
        record = await self._find(token) if token is not None else await self._by_session(fields)
        return record is not None

    async def has_session(self, fields: Mapping[str, str]) -> bool:
        """Return whether a browser's cookie opens a session. It says nothing about tokens."""
        return await self._by_session(fields) is not None

    async def note_refusal(self, actor: Actor, action: str, resource_id: str, reason: str) -> None:
        """Write down that `actor` tried a change, and why it was refused before it reached its action."""
        await self._audit(
            AuditEntry(
                at=self._utc(),
                actor=actor.name,
                action=action,
                resource=action.partition(".")[0],
                resource_id=resource_id,
                allowed=False,
                details={"reason": reason},
                address=actor.address,
                user_agent=actor.user_agent,
            )
        )

    async def _tokens(self) -> dict[str, TokenRecord]:
        if self._known is None:
            self._known = {record.hash: record for record in await self._store.tokens()}
        return self._known

    async def _find(self, token: str) -> TokenRecord | None:
        hashed = digest(token)
        record = (await self._tokens()).get(hashed)
        if record is None or not hmac.compare_digest(record.hash, hashed):
            return None
        return record if is_live(record, self._utc()) else None

    async def _by_session(self, fields: Mapping[str, str]) -> TokenRecord | None:
        """Return the token a browser's cookie stands for: a session never outlives it."""
        token_id = self._sessions.token_of(fields)
        if token_id is None:
            return None
        found = (record for record in (await self._tokens()).values() if record.id == token_id)
        return next((record for record in found if is_live(record, self._utc())), None)

    async def _refuse_login(self, address: str, agent: str) -> None:
        now = self._clock()
        wait_s = self._failed.wait_s(address, now)
        if wait_s > 0:
            self.refused_logins += 1
            raise Problem(
                429,
                "Too Many Requests",
                "too many wrong tokens from this address",
                retry_after_s=int(wait_s) + 1,
            )
        self._failed.record(address, now)
        await self._audit(
            AuditEntry(
                at=self._utc(),
                actor="unknown",
                action="login",
                resource="token",
                allowed=False,
                details={"reason": "unknown, expired or revoked token"},
                address=address,
                user_agent=agent,
            )
        )

    async def _audit(self, entry: AuditEntry) -> None:
        """Store a refusal. It stands even when it cannot be stored."""
        try:
            async with self._store.transaction(anywhere=True) as tx:
                tx.add_audit(entry)
        except StoreError as exc:
            log.error("audit_lost", action=entry.action, actor=entry.actor, reason=str(exc))

    async def _note_use(self, record: TokenRecord) -> None:
        """Store that a token is used, now and then; a store that is slow keeps nobody waiting."""
        now = self._utc()
        if record.last_used_at is not None and now - record.last_used_at < USE_NOTED_EVERY:
            return
        self.learn(msgspec.structs.replace(record, last_used_at=now))
        task = asyncio.get_running_loop().create_task(self._store_use(record, now), name="token use")
        self._uses.add(task)
        task.add_done_callback(self._uses.discard)
        await asyncio.wait({task}, timeout=NOTE_S)

    async def _store_use(self, record: TokenRecord, now: datetime) -> None:
        try:
            async with self._store.transaction(anywhere=True) as tx:
                # Read again under the writer's lock: a revocation in between must not be undone.
                latest = await self._store.token_by_hash(record.hash)
                if latest is not None and latest.revoked_at is None:
                    tx.put_token(msgspec.structs.replace(latest, last_used_at=now))
        except StoreError as exc:
            log.warning("token_use_not_noted", token=record.name, reason=str(exc))

    async def close(self) -> None:
        """Let what is being written down be written."""
        if self._uses:
            await asyncio.wait(self._uses, timeout=CLOSE_S)


async def ensure_bootstrap_token(store: Store, path: Path, now: datetime) -> Path | None:
    """Make the first admin token if the store has never had a token; write it to `path` (0600), say where.

    Returns `path` when a token was made. The file comes first: a crash before the row leaves a file that the
    next start replaces, never a gateway without a key. Raises StoreError if the file cannot be written.
    """
    if await store.tokens():
        return None
    token = new_token()
    try:
        _write_private(path, token + "\n")
    except OSError as exc:
        raise StoreError(f"{path}: the bootstrap token cannot be written: {exc.strerror or exc}") from exc
    async with store.transaction() as tx:
        tx.put_token(record_of(token, name="bootstrap", role="admin", created_by="gateway", now=now))
        tx.add_audit(
            AuditEntry(
                at=now,
                actor="gateway",
                action="token.create",
                resource="token",
                resource_id="bootstrap",
                details={"role": "admin", "path": str(path)},
            )
        )
    log.info("bootstrap_token_written", path=str(path), role="admin")
    return path


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
