"""The base of every checked setting, shared by the configuration file and the admin API."""

from typing import Final, dataclass_transform

import msgspec

SESSION_COOKIE: Final = "gateway_session"
"""The admin listener's cookie. Cookies know no port, so the proxy never forwards it."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A value somebody wrote: camelCase in JSON, snake_case in TOML, unknown keys refused.

    Durations are integer milliseconds unless a field's docstring says otherwise; percentages are 0–100.
    """
