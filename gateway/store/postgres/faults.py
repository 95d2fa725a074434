"""What asyncpg and the network raise, as errors that name the database and never a password."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from gateway.errors import StoreBusy, StoreDamaged, StoreError, StoreUnreachable

DEAD_CLASSES: Final = ("08", "57P")
"""SQLSTATEs after which a connection is no use: it broke, or the server goes down, or is not up yet."""
DEAD: Final = ("25006", "25P03", "53300")
"""Others like that: a primary that became read-only, a session ended for idling, no place for another."""
BUSY: Final = ("55P03", "57014", "40P01")
"""Somebody holds a lock for too long; a statement took too long; a deadlock."""
DAMAGED: Final = ("XX001", "XX002")


@contextmanager
def named(label: str) -> Iterator[None]:
    """Turn what the block raises about the database into a StoreError that begins with `label`."""
    try:
        yield
    except StoreError as exc:
        if str(exc).startswith(f"{label}: "):
            raise
        raise type(exc)(f"{label}: {exc}") from exc
    except asyncpg.PostgresError as exc:
        # Without its DETAIL and HINT: they are further lines, and show what rows hold.
        raise _kind_of(exc)(f"{label}: {exc.args[0]}") from exc
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        raise _client_side(exc)(f"{label}: {exc}") from exc
    except TimeoutError as exc:
        raise StoreUnreachable(f"{label}: no answer in time") from exc
    except ssl.SSLCertVerificationError as exc:  # no waiting makes it good
        raise StoreError(f"{label}: its certificate: {exc.verify_message}") from exc
    except OSError as exc:
        raise StoreUnreachable(f"{label}: {exc.strerror or exc}") from exc


def is_dead(sqlstate: str) -> bool:
    """Return whether a connection that said this is no use any more."""
    return sqlstate.startswith(DEAD_CLASSES) or sqlstate in DEAD


def _kind_of(error: asyncpg.PostgresError) -> type[StoreError]:
    state = error.sqlstate or ""
    if is_dead(state):
        return StoreUnreachable
    if state in BUSY:
        return StoreBusy
    return StoreDamaged if state in DAMAGED else StoreError


def _client_side(error: Exception) -> type[StoreError]:
    """A value that does not fit is the caller's; anything else is a connection that is of no use."""
    is_ours = isinstance(error, ValueError) and not isinstance(error, asyncpg.TargetServerAttributeNotMatched)
    return StoreError if is_ours else StoreUnreachable
