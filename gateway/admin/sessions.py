"""Browser sessions: a cookie that stands for a token, for as long as the token lives and 12 hours at most.

They are kept in memory: a gateway that is replaced asks for the token again.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from gateway.core.settings.base import SESSION_COOKIE

LIFE_S: Final = 43_200
SIGN_IN: Final = "/sign-in"
"""Where a link leads."""
PER_TOKEN: Final = 20
"""Open at once; a further one ends the oldest of the same token."""
LINK_LIFE_S: Final = 600
LINKS: Final = 20
"""Not yet followed; a further one ends the oldest."""
_ATTRIBUTES: Final = "HttpOnly; SameSite=Strict; Path=/"


class Session(NamedTuple):
    """Whose token a cookie stands for. until: monotonic seconds."""

    token_id: str
    until: float


class Sessions:
    """The sessions that are open, by the digest of their cookie."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Session] = {}
        """The oldest first."""
        self._links: dict[str, Session] = {}
        """Links that sign a browser in once, by the digest of their code, the oldest first."""

    def open(self, token_id: str) -> str:
        """Begin a session. Returns the cookie's value, which is kept nowhere."""
        now = self._clock()
        self._open = {key: each for key, each in self._open.items() if now < each.until}
        same = [key for key, each in self._open.items() if each.token_id == token_id]
        for key in same[: max(0, len(same) - PER_TOKEN + 1)]:
            del self._open[key]
        value = secrets.token_urlsafe(32)
        self._open[_digest(value)] = Session(token_id, now + LIFE_S)
        return value

    def token_of(self, fields: Mapping[str, str]) -> str | None:
        """Return the id of the token that a request's cookie stands for. fields: by lower-case name."""
        now = self._clock()
        found = (self._open.get(_digest(value)) for value in _values(fields))
        return next((each.token_id for each in found if each is not None and now < each.until), None)

    def offer(self, token_id: str) -> str:
        """Make a code that begins one session, within LINK_LIFE_S. It is kept nowhere."""
        now = self._clock()
        self._links = {key: each for key, each in self._links.items() if now < each.until}
        for key in list(self._links)[: max(0, len(self._links) - LINKS + 1)]:
            del self._links[key]
        code = secrets.token_urlsafe(32)
        self._links[_digest(code)] = Session(token_id, now + LINK_LIFE_S)
        return code

    def redeem(self, code: str) -> str | None:
        """Begin the session a code is for. Returns the cookie's value; None if it was used or is too old."""
        found = self._links.pop(_digest(code), None)
        return self.open(found.token_id) if found is not None and self._clock() < found.until else None

    def close(self, fields: Mapping[str, str]) -> None:
        """End the session of a request's cookie."""
        for value in _values(fields):
            self._open.pop(_digest(value), None)


def opening_field(value: str, *, secure: bool) -> tuple[str, str]:
    """Return the field that gives a browser the cookie. secure: it came by https, and shall only go there."""
    more = "; Secure" if secure else ""
    return "Set-Cookie", f"{SESSION_COOKIE}={value}; Max-Age={LIFE_S}; {_ATTRIBUTES}{more}"


def closing_field() -> tuple[str, str]:
    """Return the field that takes the cookie away."""
    return "Set-Cookie", f"{SESSION_COOKIE}=; Max-Age=0; {_ATTRIBUTES}"


def is_own_origin(fields: Mapping[str, str]) -> bool:
    """Return whether a request comes from a page of this very listener (RFC 6454 §7)."""
    host = fields.get("host", "").lower()
    return bool(host) and fields.get("origin", "").lower() in (f"http://{host}", f"https://{host}")


def _values(fields: Mapping[str, str]) -> list[str]:
    pairs = (pair.strip().partition("=") for pair in fields.get("cookie", "").split(";"))
    return [value for name, _, value in pairs if name == SESSION_COOKIE and value]


def _digest(value: str) -> str:
    return sha256(value.encode()).hexdigest()
