"""What would have to change for the gateway to be what a file says. Nothing is asked or done here."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from gateway.cli.wanted import Wanted
from gateway.config import FileService, FileVersion
from gateway.core.settings.secrets import HIDDEN as SECRET
from gateway.core.settings.secrets import hidden

Action = Literal["create", "change", "delete"]


class Present(msgspec.Struct, frozen=True):
    """What there is, as the API tells it. you: the name of the token that asks."""

    services: list[dict[str, Any]]
    versions: list[dict[str, Any]]
    tokens: list[dict[str, Any]]
    you: str = ""

    def versions_of(self, service: str) -> list[dict[str, Any]]:
        """Return a service's versions."""
        return [each for each in self.versions if each["serviceName"] == service]


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to do: what `apply` sends, and how people read it."""

    action: Action
    kind: Literal["service", "version", "token"]
    name: str
    body: dict[str, Any] = {}
    """To send: a POST's body, a PATCH's merge patch."""
    lines: tuple[str, ...] = ()
    """Each key that changes: `health.path: "/a" -> "/b"`."""
    id: str = ""
    """Of what is changed or deleted."""
    next: str = ""
    """The command that goes on from here."""


class Plan(msgspec.Struct, frozen=True):
    """All there is to do. deletions: of what the file does not name. notes: what is left to a person."""

    changes: list[Change]
    deletions: list[Change]
    notes: list[str]


def plan(wanted: Wanted, present: Present) -> Plan:
    """Return what has to be done, in the order it has to be done in."""
    known = {each["name"]: each for each in present.services}
    changes: list[Change] = []
    notes: list[str] = []
    for service in wanted.services:
        found = known.get(service.name)
        if found is None:
            changes.append(_new_service(service))
        elif found["source"] == "file":
            if _differences(settings_of(service), found["settings"]):
                notes.append(
                    f"service {service.name}: the gateway's own file declares it; change its policies there"
                )
        elif change := _changed_service(service, found):
            changes.append(change)
        for each in _versions(service, present.versions_of(service.name)):
            (changes if isinstance(each, Change) else notes).append(each)  # type: ignore[arg-type]
    changes += _tokens(wanted, present, notes)
    return Plan(changes, list(_deletions(wanted, present)), notes)


# -- services


def settings_of(service: FileService) -> dict[str, Any]:
    """Return a service's settings as the API has them."""
    settings: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(service.settings()))
    return settings


def default_settings() -> dict[str, Any]:
    """Return the settings of a service that says nothing."""
    return settings_of(FileService(name="any"))


def _new_service(service: FileService) -> Change:
    defaults, settings = default_settings(), settings_of(service)
    given = {key: value for key, value in settings.items() if value != defaults[key]}
    lines = tuple(f"{path}: {text(value)}" for path, value in flat(hidden(given)))
    return Change(
        action="create", kind="service", name=service.name, body={"name": service.name, **given}, lines=lines
    )


def _changed_service(service: FileService, found: dict[str, Any]) -> Change | None:
    wanted = settings_of(service)
    lines = _differences(wanted, found["settings"])
    if not lines:
        return None
    patch = merge_patch(found["settings"], wanted)
    return Change(action="change", kind="service", name=service.name, body=patch, lines=tuple(lines))


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    patch = merge_patch(found, wanted)
    return [f"{path}: {text(_at(found, path))} -> {text(value)}" for path, value in flat(hidden(patch))]


def merge_patch(found: Any, wanted: dict[str, Any], shown: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) from `found` to `wanted`. What is a secret there stays.

    shown: `wanted` as the API would show it, which is what can be compared.
    """
    visible: dict[str, Any] = hidden(wanted) if shown is None else shown
    patch: dict[str, Any] = {}
    for key in sorted(found.keys() | wanted.keys()):
        before, after = found.get(key), wanted.get(key)
        if is_same(before, visible.get(key)):
            continue
        if key == "values":  # of testers: replaced as a whole
            patch[key] = after
        elif isinstance(before, dict) and isinstance(after, dict):
            patch[key] = merge_patch(before, after, visible[key])
        else:
            patch[key] = after
    return patch


def is_same(found: Any, wanted: Any) -> bool:
    """Whether two values say the same, as far as the API shows what it has. A secret not given is kept."""
    if isinstance(found, str) and SECRET in found:
        return wanted in (None, "", found)
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(is_same(found.get(key), wanted.get(key)) for key in found.keys() | wanted.keys())
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(is_same, found, wanted))
    return bool(found == wanted)


# -- versions


def _versions(service: FileService, present: list[dict[str, Any]]) -> Iterator[Change | str]:
    """Yield what is to be done about a service's versions: never a weight where one has weight."""
    known = {each["version"]: each for each in present}
    is_live = any(each["weight"] for each in present)
    weighted = any(each.weight for each in service.version)
    # The first one registered would get all the weight: the one that is to have it comes first.
    for each in sorted(service.version, key=lambda version: -version.weight):
        found = known.get(each.version)
        if found is not None:
            yield from _changed_version(service.name, each, found)
            continue
        body: dict[str, Any] = {"serviceName": service.name, "version": each.version, "url": each.url}
        body |= {"replicas": list(each.replicas)} if each.replicas else {}
        body |= {"shutdownUrl": each.shutdown_url} if each.shutdown_url else {}
        if is_live or weighted:
            body["weight"] = 0 if is_live else each.weight
        is_first = not is_live and not weighted
        is_live = is_live or is_first
        step = f"gateway deploy {service.name} {each.version}" if body.get("weight", 100) == 0 else ""
        lines = tuple(
            f"{key}: {text(value)}"
            for key, value in hidden(body).items()
            if key not in ("serviceName", "version")
        )
        name = f"{service.name} {each.version}"
        yield Change(action="create", kind="version", name=name, body=body, lines=lines, next=step)


def _changed_version(service: str, wanted: FileVersion, found: dict[str, Any]) -> Iterator[Change | str]:
    name = f"{service} {wanted.version}"
    if wanted.url != found["url"] and found["weight"]:
        yield (
            f"version {name} has traffic at {found['url']}, the file says {wanted.url}: "
            f"`gateway edit {name} --url {wanted.url}` moves it, at once"
        )
        wanted = msgspec.structs.replace(wanted, url=found["url"])
    after = {"url": wanted.url, "replicas": list(wanted.replicas), "shutdownUrl": wanted.shutdown_url}
    patch = merge_patch({key: found.get(key) for key in after}, after)
    if patch:
        lines = tuple(
            f"{key}: {text(found.get(key))} -> {text(value)}" for key, value in hidden(patch).items()
        )
        yield Change(action="change", kind="version", name=name, body=patch, lines=lines, id=found["id"])


# -- tokens


def _tokens(wanted: Wanted, present: Present, notes: list[str]) -> list[Change]:
    known = {each["name"]: each for each in present.tokens if each.get("revokedAt") is None}
    changes = []
    for each in wanted.tokens:
        found = known.get(each.name)
        if found is None:
            body = {"name": each.name, "role": each.role}
            lines = (f"role: {text(each.role)}",)
            changes.append(Change(action="create", kind="token", name=each.name, body=body, lines=lines))
        elif found["role"] != each.role:
            notes.append(
                f"token {each.name} is {found['role']}, the file says {each.role}: a token keeps its role; "
                f"`gateway token revoke {each.name}` and apply again"
            )
    return changes


# -- deletions


def _deletions(wanted: Wanted, present: Present) -> Iterator[Change]:
    """Yield what the file does not name; never what the gateway's own file declares, or who asks."""
    named = {service.name: {each.version for each in service.version} for service in wanted.services}
    for service in present.services:
        name = service["name"]
        if service["source"] == "file" and name not in named:
            continue
        if name not in named:
            yield Change(action="delete", kind="service", name=name, id=name)
            continue
        for version in present.versions_of(name):
            if version["version"] not in named[name] and not version["weight"] and named[name]:
                yield Change(
                    action="delete", kind="version", name=f"{name} {version['version']}", id=version["id"]
                )
    kept = {each.name for each in wanted.tokens} | {present.you, "bootstrap"}
    for token in present.tokens if wanted.tokens else ():
        if token.get("revokedAt") is None and token["name"] not in kept:
            yield Change(action="delete", kind="token", name=token["name"], id=token["id"])


# -- texts


def flat(tree: dict[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every leaf."""
    for key, value in tree.items():
        path = f"{under}.{key}" if under else key
        if isinstance(value, dict) and value:
            yield from flat(value, path)
        else:
            yield path, value


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def text(value: Any) -> str:
    """Return a value as JSON has it."""
    return msgspec.json.encode(value).decode()


SIGNS = {"create": "+", "change": "~", "delete": "-"}


def lines_of(changes: Iterable[Change]) -> Iterator[str]:
    """Yield changes as people read them."""
    for each in changes:
        yield f"{SIGNS[each.action]} {each.kind} {each.name}"
        yield from (f"    {line}" for line in each.lines)
