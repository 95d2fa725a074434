"""Who asks, and what every action has at hand."""

import msgspec

from gateway.store.records import Role


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a change: authenticated, role already checked by the admin listener."""

    name: str
    role: Role
    address: str = ""
    user_agent: str = ""
