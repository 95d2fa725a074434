"""Bearer tokens: 32 random bytes behind a visible prefix, of which only the SHA-256 is kept.

With 256 bits of chance there is nothing to guess, so no slow hash is needed.
"""

import hashlib
import secrets
import uuid
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from gateway.actions.access import Access, Actor
from gateway.actions.bodies import CreateToken
from gateway.actions.problems import conflict, not_found
from gateway.store.api import Page
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


def record_of(token: str, *, name: str, role: Role, created_by: str, now: datetime) -> TokenRecord:
    """Return the row of a new token."""
    return TokenRecord(
        id=str(uuid.uuid4()),
        name=name,
        role=role,
        prefix=token[:VISIBLE],
        hash=digest(token),
        created_by=created_by,
        created_at=now,
    )


class Tokens:
    """Everything about tokens."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_all(self) -> Page[TokenRecord]:
        """Return every token, revoked ones too; never the secret."""
        return Page(await self._access.store.tokens())

    async def create(self, actor: Actor, body: CreateToken) -> tuple[TokenRecord, str]:
        """Make a token. Returns its record and, this once, the token."""
        token = new_token()
        record = record_of(
            token, name=body.name, role=body.role, created_by=actor.name, now=self._access.now()
        )
        details = {"name": body.name, "role": body.role}
        async with self._access.change(actor, "token.create", record.id, details) as tx:
            live = [each for each in await self._access.store.tokens() if each.revoked_at is None]
            if any(each.name == body.name for each in live):
                raise conflict(
                    f"a token named {body.name!r} exists: the audit trail tells people apart by it"
                )
            tx.put_token(record)
        return record, token

    async def revoke(self, actor: Actor, token_id: str) -> None:
        """Revoke a token, at once; revoking it again changes nothing."""
        async with self._access.change(actor, "token.revoke", token_id) as tx:
            tokens = {record.id: record for record in await self._access.store.tokens()}
            record = tokens.get(token_id)
            if record is None:
                raise not_found("token", token_id)
            if record.revoked_at is not None:
                return
            admins = [each for each in tokens.values() if each.role == "admin" and each.revoked_at is None]
            if admins == [record]:
                raise conflict("it is the last admin token; make another one first")
            tx.put_token(replace(record, revoked_at=self._access.now()))
