"""Which routes take requests that other routes would get."""

from collections.abc import Iterable, Mapping

from gateway.core.routing.service import RouteSettings, ServiceSettings


def losers(routes: Iterable[RouteSettings], others: Mapping[str, ServiceSettings]) -> list[str]:
    """Return the services, by name, that would lose requests to `routes` if those were added."""
    ours = tuple(routes)
    return sorted(
        name
        for name, settings in others.items()
        if any(takes_from(route, other) for route in ours for other in settings.routes)
    )


def takes_from(route: RouteSettings, other: RouteSettings) -> bool:
    """Return whether some request fits both routes and `route` is the one that gets it.

    By the rules of `RoutingTable`: the more exact host wins, then the longer path, then the one that names
    the method.
    """
    if not (_hosts_meet(route.host, other.host) and _methods_meet(route, other)):
        return False
    mine, theirs = _exactness(route.host), _exactness(other.host)
    if mine != theirs:
        return mine > theirs and (_is_under(route.path, other.path) or _is_under(other.path, route.path))
    if not _is_under(route.path, other.path):
        return False
    return _bare(route.path) != _bare(other.path) or bool(route.methods) >= bool(other.methods)


def _exactness(host: str) -> tuple[int, int]:
    """Return what orders hosts: a name before `*.suffix`, the longest first, before `*`."""
    if host == "*":
        return 0, 0
    return (1, len(host)) if host.startswith("*.") else (2, 0)


def _hosts_meet(one: str, other: str) -> bool:
    """Return whether some host fits both."""
    one, other = one.lower(), other.lower()
    if "*" in (one, other) or one == other:
        return True
    return _fits(one, other) or _fits(other, one)


def _fits(host: str, pattern: str) -> bool:
    """Return whether whatever `host` means lies within `*.suffix`."""
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])


def _methods_meet(one: RouteSettings, other: RouteSettings) -> bool:
    return not one.methods or not other.methods or bool(set(one.methods) & set(other.methods))


def _is_under(path: str, prefix: str) -> bool:
    """Return whether `path` lies at or below `prefix`, by whole segments."""
    bare = _bare(prefix)
    return _bare(path) == bare or path.startswith(f"{bare}/")


def _bare(path: str) -> str:
    return path.rstrip("/")
