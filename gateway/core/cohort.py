"""Sticky keys -> versions, monotone: who saw the new version keeps it as its share grows."""

from typing import Annotated

from msgspec import Meta

from gateway.core.settings import Settings


class StickySettings(Settings):
    """What identifies a user."""

    by: Annotated[str, Meta(pattern=r"^(cookie:[^;,= \t]+|header:[A-Za-z0-9-]+|client_ip)$")]
    """`cookie:NAME`, `header:NAME` or `client_ip`."""
    issue_cookie: bool = False
    """Set our own cookie on a client that has none (only with `cookie:`)."""
