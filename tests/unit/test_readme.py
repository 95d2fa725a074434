"""The README names every setting with its default, every metric and every call of the admin API."""

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gateway.admin.call import Route
from gateway.admin.routes import ROUTES
from gateway.config import Config
from gateway.core.rollout.plan import RolloutSettings
from tests.unit.exposed import exposed

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text("utf-8")
ROWS: Final = {
    cells[0].strip("`"): cells[1:]
    for line in README.splitlines()
    if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
}
"""First cell of every table row that opens with a code word -> its other cells."""


def settings(kind: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted path, default) of every leaf setting below a struct."""
    for field in msgspec.structs.fields(kind):
        where = f"{path}.{field.name}" if path else field.name
        inner = [
            part for part in parts(field.type) if isinstance(part, type) and issubclass(part, msgspec.Struct)
        ]
        for struct in inner:
            yield from settings(struct, where)
        if not inner:
            yield where, default_of(field)


def parts(annotation: Any) -> Iterator[Any]:
    """Yield every type inside an annotation: through Annotated, unions and tuples."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from parts(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType, tuple):
        for part in typing.get_args(annotation):
            yield from parts(part)
    else:
        yield annotation


def default_of(field: msgspec.structs.FieldInfo) -> object:
    """Return a field's default; NODEFAULT for one that must be given."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def as_written(value: object) -> str:
    """Return a default as the README's second column shows it."""
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None or value is msgspec.UNSET:
        return "none"
    return f"`{msgspec.json.encode(value).decode()}`".replace(",", ", ")


def label(value: object) -> str:
    return value if isinstance(value, str) and "." in value else ""


SETTINGS: Final = dict(settings(Config))
ROLLOUT_SETTINGS: Final = {
    f"config.{field.encode_name}": default_of(field) for field in msgspec.structs.fields(RolloutSettings)
}


@pytest.mark.parametrize(("path", "default"), [*(SETTINGS | ROLLOUT_SETTINGS).items()], ids=label)
def test_setting_is_described_with_its_default(path: str, default: object) -> None:
    assert path in ROWS, f"no table row opens with `{path}`"
    assert ROWS[path][0] == as_written(default)
    assert ROWS[path][1], "no meaning"


def test_every_described_setting_exists() -> None:
    tables = {path.partition(".")[0] for path in SETTINGS | ROLLOUT_SETTINGS}
    described = {name for name in ROWS if "." in name and name.partition(".")[0] in tables}
    assert not described - SETTINGS.keys() - ROLLOUT_SETTINGS.keys()


def test_every_metric_is_described_with_its_labels() -> None:
    for sample, labels in exposed().items():
        name = re.sub(r"_(bucket|count|sum)$", "", sample) if "duration" in sample else sample
        assert name in ROWS or name.startswith("gateway_control_process_"), name
        if name in ROWS:
            assert set(re.findall(r"\w+", ROWS[name][0])) == labels - {"le"}, name


def test_every_described_metric_is_exposed() -> None:
    described = {name for name in ROWS if name.startswith("gateway_")}
    assert (
        described <= {re.sub(r"_(bucket|count|sum)$", "", sample) for sample in exposed()} | exposed().keys()
    )


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_call_of_the_admin_api_is_described_with_its_role(route: Route) -> None:
    call = f"{route.method} {route.path.replace('{', ':').replace('}', '')}"
    assert call in ROWS
    assert ROWS[call][1].startswith(route.role)


def test_every_described_call_exists() -> None:
    described = {name.replace(":id", "{id}").replace(":name", "{name}") for name in ROWS if is_call(name)}
    assert described == {f"{route.method} {route.path}" for route in ROUTES}


def is_call(text: str) -> bool:
    return text.partition(" ")[0] in {route.method for route in ROUTES}


def test_each_command_is_one_line_that_makes_its_own_environment() -> None:
    run, test = (line for line in README.splitlines() if line.startswith("python3 -m venv"))
    assert run == "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/gateway serve"
    assert test == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest"
