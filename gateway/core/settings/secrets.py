"""What of a setting is shown: everything but what opens doors elsewhere.

Secrets are written and never shown again, to anybody: not by the API, the audit or the log. A stand-in takes
their place, and is refused where it is sent back as if it were the secret.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.core.settings.faults import pointer_step

HIDDEN: Final = "***"
_SOUGHT: Final = frozenset(
    {"secret", "body_contains", "bodyContains", "expected_body", "expectedBody", "json_value", "jsonValue"}
)
_USERINFO: Final = re.compile(r"(?<=:)//[^/?#\s]*@")

_Change = Callable[[str, Any, Any], Any]
"""(JSON pointer, a secret, what may be shown of it) -> what takes its place."""


def hidden(value: Any) -> Any:
    """Return settings, or a part or patch of them, as they may be shown. value: of built-in types.

    Not shown are keys that sign, values of header fields, what tests and probes send, ask in a query, and
    look for, paths of webhooks (Slack's hold its key), queries of shutdown urls, what testers bring, and
    credentials in any url.
    """
    return _changed(value, lambda at, secret, shown: shown, "")


def stand_in(value: Any) -> str:
    """Return the JSON pointer of the first secret in settings that is only a stand-in; empty if none is."""
    found: list[str] = []

    def look(at: str, secret: Any, shown: Any) -> None:
        if isinstance(secret, str) and secret.endswith(HIDDEN):
            found.append(at)

    _changed(value, look, "")
    return found[0] if found else ""


def _changed(value: Any, change: _Change, at: str) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _field(name, each, value, change, f"{at}/{pointer_step(name)}")
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_changed(each, change, f"{at}/{index}") for index, each in enumerate(value)]
    if isinstance(value, str) and (shown := without_credentials(value)) != value:
        return change(at, value, shown)
    return value


def _field(name: str, value: Any, around: Mapping[str, Any], change: _Change, at: str) -> Any:
    if value is None or value == "":
        return value
    if name in _SOUGHT or (name == "body" and "path" in around):
        return change(at, value, HIDDEN)
    if name == "path" and isinstance(value, str) and "?" in value:
        return change(at, value, _without_query(value))
    if name == "headers" and isinstance(value, Mapping):
        return {field: change(f"{at}/{pointer_step(field)}", each, HIDDEN) for field, each in value.items()}
    if name == "webhooks" and isinstance(value, list | tuple):
        return [_hook(each, change, f"{at}/{index}") for index, each in enumerate(value)]
    if name == "testers" and isinstance(value, Mapping):
        return _testers(value, change, at)
    if name in ("shutdown_url", "shutdownUrl"):
        return change(at, value, without_credentials(_without_query(value)))
    return _changed(value, change, at)


def _hook(value: Any, change: _Change, at: str) -> Any:
    result = _changed(value, change, at)
    if isinstance(value, Mapping) and isinstance(value.get("url"), str):
        result["url"] = change(f"{at}/url", value["url"], host_alone(value["url"]))
    return result


def _testers(value: Mapping[str, Any], change: _Change, at: str) -> Any:
    """Return testers as they may be shown: their secrets are the names of `values`."""
    values = value.get("values")
    if not isinstance(values, Mapping):
        return value
    names = [change(f"{at}/values", secret, f"{n}{HIDDEN}") for n, secret in enumerate(values, 1)]
    return {**value, "values": dict(zip(names, values.values(), strict=True))}


def without_credentials(text: str) -> str:
    """Return a text, a url or what holds some, without what stands before the `@` of their authorities."""
    return _USERINFO.sub(f"//{HIDDEN}@", text) if "@" in text else text


def host_alone(url: str) -> str:
    """Return a url without what follows its host, if something does."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    is_bare = parts.path in ("", "/") and not parts.query
    return url if is_bare else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{HIDDEN}"


def _without_query(url: Any) -> Any:
    start, mark, _ = url.partition("?") if isinstance(url, str) else (HIDDEN, "", "")
    return f"{start}?{HIDDEN}" if mark else start
