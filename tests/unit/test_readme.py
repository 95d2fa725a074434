"""Each room's README names every setting with its default, every metric and every call of the admin API."""

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
ROOMS: Final = ("config/README.md", "gateway/README.md", "gateway/admin/README.md", "bench/README.md")


def rows_of(name: str) -> dict[str, list[str]]:
    """Return first cell of every table row that opens with a code word -> its other cells."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


CONFIG_ROWS: Final = rows_of("config/README.md")
API_ROWS: Final = rows_of("gateway/admin/README.md")


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


@pytest.mark.parametrize(
    ("rows", "path", "default"),
    [
        *((CONFIG_ROWS, path, default) for path, default in SETTINGS.items()),
        *((API_ROWS, path, default) for path, default in ROLLOUT_SETTINGS.items()),
    ],
    ids=label,
)
def test_setting_is_described_with_its_default(
    rows: dict[str, list[str]], path: str, default: object
) -> None:
    assert path in rows, f"no table row opens with `{path}`"
    assert rows[path][0] == as_written(default)
    assert rows[path][1], "no meaning"


@pytest.mark.parametrize(
    ("rows", "existing"), [(CONFIG_ROWS, SETTINGS), (API_ROWS, ROLLOUT_SETTINGS)], ids=["config", "api"]
)
def test_every_described_setting_exists(rows: dict[str, list[str]], existing: dict[str, object]) -> None:
    tables = {path.partition(".")[0] for path in existing}
    described = {name for name in rows if "." in name and name.partition(".")[0] in tables}
    assert described == existing.keys() - {name for name in existing if "." not in name}


def test_every_metric_is_described_with_its_labels() -> None:
    for sample, labels in exposed().items():
        name = re.sub(r"_(bucket|count|sum)$", "", sample) if "duration" in sample else sample
        assert name in API_ROWS or name.startswith("gateway_control_process_"), name
        if name in API_ROWS:
            assert set(re.findall(r"\w+", API_ROWS[name][0])) == labels - {"le"}, name


def test_every_described_metric_is_exposed() -> None:
    described = {name for name in API_ROWS if name.startswith("gateway_")}
    assert (
        described <= {re.sub(r"_(bucket|count|sum)$", "", sample) for sample in exposed()} | exposed().keys()
    )


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_call_of_the_admin_api_is_described_with_its_role(route: Route) -> None:
    call = f"{route.method} {route.path.replace('{', ':').replace('}', '')}"
    assert call in API_ROWS
    assert API_ROWS[call][1].startswith(route.role)


def test_every_described_call_exists() -> None:
    described = {re.sub(r":(\w+)", r"{\1}", name) for name in API_ROWS if is_call(name)}
    assert described == {f"{route.method} {route.path}" for route in ROUTES}


def is_call(text: str) -> bool:
    return text.partition(" ")[0] in {route.method for route in ROUTES}


def test_every_alert_has_its_place_in_the_runbook() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (ROOT / "config/alerts.yml").read_text("utf-8")))
    sections = re.findall(
        r"^### (Gateway[A-Z]\w+)$", (ROOT / "config/README.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(alerts) == sorted(sections)


def test_every_folder_of_the_package_has_its_place_among_the_rooms() -> None:
    rooms = {name.rstrip("/") for name in rows_of("gateway/README.md") if name.endswith("/")}
    package = ROOT / "gateway"
    folders = {str(each.parent.relative_to(package)) for each in package.rglob("*.py")} - {"."}
    assert rooms == folders


def test_a_stranger_reads_the_readme_in_five_minutes() -> None:
    assert len(README.encode()) <= 15_000


def test_the_changelog_keeps_its_order() -> None:
    kinds = re.findall(r"^\*\*(\w+)\*\*$", (ROOT / "config/CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert kinds == ["Security", "Removed", "Added", "Changed", "Fixed"]


@pytest.mark.parametrize("name", ["README.md", *ROOMS])
def test_links_lead_to_something(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if file.startswith("http"):
            continue
        place = (ROOT / name).parent / file if file else ROOT / name
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place.read_text("utf-8")), target


def anchors(text: str) -> set[str]:
    """Return the anchors GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_each_command_is_one_line_that_makes_its_own_environment() -> None:
    run, test = (line for line in README.splitlines() if line.startswith("python3 -m venv"))
    assert run == "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/gateway serve"
    assert test == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest"
