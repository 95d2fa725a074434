"""What keeps a user on one version."""

from typing import Annotated

from gateway.core.settings.base import Settings
from gateway.core.settings.text import worded


class StickySettings(Settings):
    """What identifies a user."""

    by: Annotated[
        str,
        worded(
            r"^(client_ip|(cookie|header):[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})",
            "one of client_ip, cookie:NAME and header:NAME",
        ),
    ]
    """`cookie:NAME`, `header:NAME` or `client_ip`."""
    issue_cookie: bool = False
    """Set our own cookie on a client that has none (only with `cookie:`)."""
