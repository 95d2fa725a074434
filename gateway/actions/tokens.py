"""Bearer tokens: 32 random bytes behind a visible prefix, of which only the SHA-256 is kept.

With 256 bits of chance there is nothing to guess, so no slow hash is needed.
"""

import hashlib
import secrets
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.actions.access import Access, Actor, bound_key, require_unscoped
from gateway.actions.bodies import CreateToken, RotateToken
from gateway.actions.problems import Problem, conflict, not_found
from gateway.store.api import Page, Transaction
from gateway.store.records import Role, TokenRecord

PREFIX: Final = "gw_"
VISIBLE: Final = 9
"""Characters that are kept to tell tokens apart: the prefix and 6 of 43."""


def new_token() -> str:
    """Return a fresh token."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Return what is kept of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def record_of(
    token: str,
    *,
    name: str,
    role: Role,
    created_by: str,
    now: datetime,
    services: str = "*",
    expires_at: datetime | None = None,
    idempotency_key: str | None = None,
    owner: str = "",
) -> TokenRecord:
    """Return the row of a new token."""
    return TokenRecord(
        id=str(uuid.uuid4()),
        name=name,
        role=role,
        prefix=token[:VISIBLE],
        hash=digest(token),
        created_by=created_by,
        created_at=now,
        services=services,
        expires_at=expires_at,
        idempotency_key=idempotency_key,
        owner=owner,
    )


def is_live(record: TokenRecord, now: datetime) -> bool:
    """Return whether a token opens anything: neither revoked nor expired."""
    return record.revoked_at is None and (record.expires_at is None or now < record.expires_at)


class Tokens:
    """Everything about tokens."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_all(self) -> Page[TokenRecord]:
        """Return every token, revoked ones too; never the secret."""
        return Page(await self._access.store.tokens())

    async def create(
        self, actor: Actor, body: CreateToken, *, idempotency_key: str | None = None
    ) -> tuple[TokenRecord, str]:
        """Make a token. Returns its record and, this once, the token."""
        token, now = new_token(), self._access.now()
        record = record_of(
            token,
            name=body.name,
            role=body.role,
            created_by=actor.name,
            now=now,
            services=body.services,
            expires_at=_after(now, body.expires_in),
            idempotency_key=_marked(actor, idempotency_key, body),
            owner=body.owner or "",
        )
        details = {"name": body.name, "role": body.role, "services": body.services}
        if body.owner:
            details["owner"] = body.owner
        async with self._access.change(actor, "token.create", record.id, details) as tx:
            require_unscoped(actor, "making a token")
            known = await self._access.store.tokens()
            _refuse_replay(known, record)
            if any(each.name == body.name and is_live(each, now) for each in known):
                raise conflict(
                    f"a token named {body.name!r} exists: the audit trail tells people apart by it",
                    f"take another name, or `gateway token rotate {body.name}` for a new secret",
                )
            self._put(tx, record)
        return record, token

    async def rotate(
        self, actor: Actor, token_id: str, body: RotateToken, *, idempotency_key: str | None = None
    ) -> tuple[TokenRecord, str]:
        """Put a new secret in a token's place; the old one works on for `overlap`. Returns as `create`."""
        token, now = new_token(), self._access.now()
        async with self._access.change(actor, "token.rotate", token_id, {"overlap": body.overlap}) as tx:
            require_unscoped(actor, "rotating a token")
            known = await self._access.store.tokens()
            old = _found(known, token_id)
            life_ms = body.expires_in if body.expires_in is not None else _life_ms(old)
            record = record_of(
                token,
                name=old.name,
                role=old.role,
                created_by=actor.name,
                now=now,
                services=old.services,
                expires_at=_after(now, life_ms),
                idempotency_key=_marked(actor, idempotency_key, (token_id, body)),
                owner=old.owner,
            )
            _refuse_replay(known, record)
            if not is_live(old, now):
                raise conflict(
                    "the token is revoked or has expired",
                    f"make a new one: `gateway token create {old.name}`",
                )
            self._put(tx, _ended(old, now, body.overlap))
            self._put(tx, record)
        return record, token

    async def revoke(self, actor: Actor, token_id: str) -> None:
        """Revoke a token, at once; revoking it again changes nothing."""
        async with self._access.change(actor, "token.revoke", token_id) as tx:
            require_unscoped(actor, "revoking a token")
            known = await self._access.store.tokens()
            record = _found(known, token_id)
            if record.revoked_at is not None:
                return
            if [each for each in known if _is_lasting_admin(each)] == [record]:
                raise conflict(
                    "it is the last admin token that does not expire",
                    "make another one first: `gateway token create NAME --role admin`",
                )
            self._put(tx, replace(record, revoked_at=self._access.now()))

    def _put(self, tx: Transaction, record: TokenRecord) -> None:
        """Put a token into `tx`; the listener checks tokens from memory, and hears of it."""
        tx.put_token(record)
        tx.on_commit(partial(self._access.on_token, record))


def _found(known: Iterable[TokenRecord], token_id: str) -> TokenRecord:
    """Return the token of this id. Raises Problem 404."""
    record = next((each for each in known if each.id == token_id), None)
    if record is None:
        raise not_found("token", token_id)
    return record


def _is_lasting_admin(record: TokenRecord) -> bool:
    return (record.role, record.services, record.revoked_at, record.expires_at) == ("admin", "*", None, None)


def _after(now: datetime, life_ms: int | None) -> datetime | None:
    return now + timedelta(milliseconds=life_ms) if life_ms is not None else None


def _life_ms(record: TokenRecord) -> int | None:
    """Return how long a token was made for; None: for good."""
    if record.expires_at is None:
        return None
    return round((record.expires_at - record.created_at) / timedelta(milliseconds=1))


def _ended(old: TokenRecord, now: datetime, overlap_ms: int) -> TokenRecord:
    """Return the row of a token that another takes the place of."""
    if not overlap_ms:
        return replace(old, revoked_at=now)
    end = now + timedelta(milliseconds=overlap_ms)
    return replace(old, expires_at=min(end, old.expires_at or end))


def _marked(actor: Actor, key: str | None, request: object) -> str | None:
    """Return what is stored of a request's Idempotency-Key: whose key it was, and what was asked."""
    bound = bound_key(actor, key)
    return bound and f"{bound}:{hashlib.sha256(msgspec.json.encode(request)).hexdigest()}"


def _refuse_replay(known: Iterable[TokenRecord], record: TokenRecord) -> None:
    """Refuse a key that has made a token: 422 with another body, else 409, for the secret is not kept."""
    if record.idempotency_key is None:
        return
    bound = record.idempotency_key.partition(":")[0]
    for each in known:
        if each.idempotency_key == record.idempotency_key:
            raise conflict(
                f"token {each.id} was made with this Idempotency-Key; its secret is not kept",
                f"`gateway token rotate {each.name}` gives it another one",
            )
        if (each.idempotency_key or "").partition(":")[0] == bound:
            raise Problem(
                422,
                "Unprocessable Content",
                f"the Idempotency-Key was used for token {each.id}, which differs",
            )
