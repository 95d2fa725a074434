"""Imports flow one way between the rooms, so that each can be read and changed by what it is given."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
OPEN_TO_ALL: Final = frozenset({"errors", "log", "plain", "structs", "__version__"})
EVERY_ROOM: Final = frozenset(
    {
        "actions",
        "admin",
        "cli",
        "cluster",
        "config",
        "control",
        "core",
        "demo",
        "http1",
        "link",
        "net",
        "store",
        "worker",
    }
)
MAY_IMPORT: Final = {
    "core": frozenset(),
    "net": frozenset(),
    "http1": frozenset({"net"}),
    "link": frozenset({"core"}),
    "store": frozenset({"core"}),
    "config": frozenset({"core"}),
    "worker": frozenset({"link", "core", "http1", "net"}),
    "control": frozenset({"store.api", "store.records", "link", "core", "http1", "net"}),
    "actions": frozenset({"control", "store.api", "store.records", "core"}),
    "admin": frozenset({"actions", "control", "store.records", "store.api", "link", "core", "http1", "net"}),
    "cli": frozenset({"config", "core.settings"}),
    "cluster": frozenset({"store.api", "store.records", "core"}),
    "serve": EVERY_ROOM,
    "demo": frozenset(),
    "log": frozenset(),
    "errors": frozenset(),
    "plain": frozenset(),
    "structs": frozenset(),
    "__init__": frozenset(),
    "__main__": frozenset({"cli"}),
}
"""Room -> the rooms it may import, besides itself and the open ones.

Of the store, control, actions and admin know the records and the two Protocols; its SQL only the composition
(`serve`) may choose.
"""
WHEN_ASKED: Final = {"cli": frozenset({"serve", "demo"})}
"""Room -> what it may import inside a function: a client of the admin API does not load the whole gateway."""
INSIDE: Final = {
    "http1/codec": frozenset(),
    "http1": frozenset({"http1/codec"}),
    "core/settings": frozenset(),
    "store": frozenset({"store/postgres"}),
    "store/postgres": frozenset({"store"}),
    "core/judge": frozenset(),
    "core/resilience": frozenset({"core/settings"}),
    "core/routing": frozenset({"core/resilience", "core/settings"}),
    "core/rollout": frozenset({"core/judge", "core/settings"}),
    "control/processes": frozenset(),
    "control/upstreams": frozenset({"control/processes"}),
    "control/catalog": frozenset({"control/upstreams"}),
    "control/rollouts": frozenset({"control", "control/upstreams"}),
    "control": frozenset(),
    "worker/tunnel": frozenset(),
    "worker/json_line": frozenset(),
    "worker/exchange": frozenset({"worker", "worker/tunnel"}),
    "worker": frozenset({"worker/exchange", "worker/json_line", "worker/tunnel"}),
    "admin/calls": frozenset({"admin"}),
    "admin": frozenset({"admin/calls"}),
}
"""Part of a room -> the parts of the same room it may import, besides itself."""
NOT_IN_CORE: Final = frozenset(
    {
        "asyncio",
        "socket",
        "selectors",
        "threading",
        "subprocess",
        "os",
        "pathlib",
        "time",
        "logging",
        "structlog",
        "uvloop",
    }
)
"""A decision is made from values: no socket, file, clock or logger."""
MODULES: Final = sorted((ROOT / "gateway").rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the room a file belongs to: its folder, or its own name at the top."""
    parts = path.relative_to(ROOT / "gateway").parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield (dotted module or member name, whether it stands at module level) of every absolute import."""
    at_top = {id(node) for node in ast.iter_child_nodes(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", id(node) in at_top) for alias in node.names)


def is_allowed(room: str, name: str, *, at_top: bool) -> bool:
    """Whether a file of `room` may import the dotted `name` below the package."""
    allowed = MAY_IMPORT[room] | OPEN_TO_ALL | {room}
    if not at_top:
        allowed |= WHEN_ASKED.get(room, frozenset())
    return any(name == permitted or name.startswith(f"{permitted}.") for permitted in allowed)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"a room nobody described: {room}"
    names = [
        (name.removeprefix("gateway."), at_top) for name, at_top in imported(parse(path)) if is_ours(name)
    ]
    wrong = [name for name, at_top in names if not is_allowed(room, name, at_top=at_top)]
    assert not wrong


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) == "core"], ids=lambda path: path.name)
def test_core_imports_nothing_that_touches_the_world(path: Path) -> None:
    assert not {name.partition(".")[0] for name, _ in imported(parse(path))} & NOT_IN_CORE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_absolute(path: Path) -> None:
    relative = [
        node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("*.py")), ids=lambda path: path.name)
def test_measurements_know_the_gateway_from_outside(path: Path) -> None:
    # Three measure a part without the rest: the judge on simulated traffic, the worker without sockets.
    parts = {"judge": ("gateway.core.", "gateway.core"), "path": ("gateway.",), "observing": ("gateway.",)}
    allowed = parts.get(path.stem.partition("_")[0], ())
    assert not [name for name, _ in imported(parse(path)) if is_ours(name) and not name.startswith(allowed)]


@pytest.mark.parametrize("room", sorted((EVERY_ROOM | INSIDE.keys()) - {"config", "admin/calls"}))
def test_room_opens_with_a_paragraph_about_itself(room: str) -> None:
    assert "room" in (ast.get_docstring(parse(ROOT / "gateway" / room / "__init__.py")) or "")


def part_of(module: str) -> str:
    """Return the folder of a file below the package: `core/judge` of `core.judge.users`."""
    return "/".join(module.split(".")[:-1])


def edges() -> dict[str, set[str]]:
    """Return file -> the files it imports, by dotted name below the package; faces (`__init__`) aside.

    Imports inside functions and under TYPE_CHECKING count: a reader follows them all the same.
    """
    files = {".".join(path.relative_to(ROOT / "gateway").with_suffix("").parts): path for path in MODULES}
    files = {name: path for name, path in files.items() if not name.endswith("__init__")}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        wanted = {each.removeprefix("gateway.") for each, _ in imported(parse(path)) if is_ours(each)}
        wanted |= {each.rpartition(".")[0] for each in wanted}
        found[name] = wanted & files.keys() - {name}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of files that can reach each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += graph[each]
        reach[start] = seen
    groups = {
        frozenset({each for each in reach[start] if start in reach[each]})
        for start in graph
        if start in reach[start]
    }
    return sorted(sorted(group) for group in groups)


def wrong_inside(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports between parts of one room that INSIDE does not allow."""
    return [
        (name, other)
        for name, others in graph.items()
        for other in sorted(others)
        if name.split(".")[0] == other.split(".")[0]
        and part_of(name) != part_of(other)
        and part_of(other) not in INSIDE.get(part_of(name), frozenset())
    ]


def test_no_two_files_import_each_other() -> None:
    assert circles(edges()) == []


def test_parts_of_a_room_import_one_way() -> None:
    assert wrong_inside(edges()) == []


def test_every_part_is_described() -> None:
    parts = {part_of(name) for name in edges()}
    rooms = {part.partition("/")[0] for part in parts if "/" in part}
    assert {part for part in parts if part.partition("/")[0] in rooms} - INSIDE.keys() - {"core"} == set()


def test_a_circle_and_an_import_upward_are_seen() -> None:
    """Guards the two walkers above: put in, they are found."""
    graph = {
        "core.judge.users": {"core.rollout.plan"},
        "core.rollout.plan": {"core.judge.users"},
        "log": set(),
    }
    assert circles(graph) == [["core.judge.users", "core.rollout.plan"]]
    assert wrong_inside(graph) == [("core.judge.users", "core.rollout.plan")]


def test_a_forbidden_import_is_seen() -> None:
    """Guards the walker itself: an import it overlooked would pass every case above."""
    tree = ast.parse("import gateway.control.hub\ndef f():\n    from gateway.control import hub\n")
    found = list(imported(tree))
    assert found == [("gateway.control.hub", True), ("gateway.control.hub", False)]
    assert not is_allowed("worker", "control.hub", at_top=True)
    assert not is_allowed("cli", "serve", at_top=True)
    assert is_allowed("cli", "serve", at_top=False)
    assert not is_allowed("cli", "admin.routes", at_top=True)


def is_ours(name: str) -> bool:
    return name == "gateway" or name.startswith("gateway.")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))
