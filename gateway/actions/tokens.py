"""Bearer tokens: 32 random bytes behind a visible prefix, of which only the SHA-256 is kept.

With 256 bits of chance there is nothing to guess, so no slow hash is needed.
"""

import hashlib
import secrets
import uuid
from datetime import datetime
from typing import Final

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
