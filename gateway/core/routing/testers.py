"""Who may choose a version: people who test it before its clients see it."""

from typing import Annotated, Final

from gateway.core.settings.base import Settings
from gateway.core.settings.text import worded

NEW: Final = "@new"
"""Instead of a version's name: the open rollout's new version, or the newest without weight."""
Token = Annotated[
    str,
    worded(
        r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}",
        "a token of HTTP: letters, digits and !#$%&'*+-.^_`|~ (64 at most)",
    ),
]
Secret = Annotated[
    str,
    worded(
        r"^([!#-+\--:<-\[\]-~]{1,256})",
        "what a cookie may hold: visible ASCII without quotes, commas, ; and backslashes",
    ),
]
"""What a cookie may hold (RFC 6265 §4.1.1)."""
Wish = Annotated[
    str,
    worded(r"^(@new|[A-Za-z0-9][A-Za-z0-9._-]{0,62})", "a version's name, or @new"),
]
_NOT_OURS: Final = frozenset(
    (
        *("connection", "content-length", "cookie", "expect", "forwarded", "host", "keep-alive"),
        *("te", "trailer", "transfer-encoding", "upgrade", "via", "x-request-id", "cdn-loop"),
    )
)
"""Fields that mean something else to the gateway, and are not taken out for testers."""


class TesterSettings(Settings, frozen=True, kw_only=True):
    """Clients that bring a secret reach the version it stands for, also before its rollout."""

    cookie: Token | None = None
    """Name of the cookie that holds the secret; it is not passed on."""
    header: Token | None = None
    """Or of the field that does. Exactly one of the two."""
    values: dict[Secret, Wish]
    """Secret -> version, or `@new`. Written and never shown again."""

    def __post_init__(self) -> None:
        if (self.cookie is None) == (self.header is None):
            raise ValueError("testers need exactly one of cookie, header")
        name = (self.header or "").lower()
        if name in _NOT_OURS or name.startswith("x-forwarded-"):
            raise ValueError(f"header cannot be {self.header}: the gateway acts on that field itself")
