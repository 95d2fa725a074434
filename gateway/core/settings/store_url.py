"""What a store's url says, and what of it may be shown."""

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

POSTGRES: Final = ("postgresql://", "postgres://")


def is_postgres(url: str) -> bool:
    """Return whether a url names a PostgreSQL database."""
    return url.startswith(POSTGRES)


def label_of(url: str) -> str:
    """Return the url of a database without password and options."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if not hosts:
        hosts = ",".join(parse_qs(parts.query).get("host", []))
    return f"postgresql://{user.partition(':')[0]}{at}{hosts}{parts.path}"


def secrets_of(url: str) -> list[str]:
    """Return what must not be shown of a url, in every spelling, the longest first."""
    parts = urlsplit(url)
    quoted = parts.netloc.rpartition("@")[0].partition(":")[2]
    found = [quoted, unquote(quoted), *parse_qs(parts.query).get("password", [])]
    return sorted({each for each in found if each}, key=len, reverse=True)
