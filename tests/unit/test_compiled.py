"""What mypyc makes of our modules is what plain Python makes of them."""

import ast
import importlib.util
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gateway.core.judge.window import Cell, KeyError64, Window
from gateway.core.resilience.retry import RetryPolicy
from gateway.http1.connections import ServerSettings
from gateway.link.counts import JudgedTotals, VersionTotals
from gateway.worker.exchange.request_head import ForwardSettings

ROOT: Final = Path(__file__).parents[2]


def compiled() -> list[str]:
    spec = importlib.util.spec_from_file_location("build", ROOT / ".ci/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.COMPILED)


def lost_options(tree: ast.Module) -> list[str]:
    """Return the classes whose statement says more than their bases do."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.keywords]
    return [node.name for node in classes if not is_inherited(node)]


def is_inherited(node: ast.ClassDef) -> bool:
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    said = {keyword.arg for keyword in node.keywords}
    return bool(bases & {"Value", "ArrayValue", "SparseValue"}) and said == {"frozen"}


@pytest.mark.parametrize("path", compiled())
def test_no_compiled_class_has_options_of_its_own(path: str) -> None:
    """mypyc drops them: a struct that is `array_like` in plain Python is a map on the wire, compiled."""
    assert lost_options(ast.parse((ROOT / "gateway" / path).read_text("utf-8"))) == []


def test_lost_options_are_seen() -> None:
    """Guards the walker above."""
    source = "class A(Struct, frozen=True): pass\nclass B(A): pass\nclass C(Value, frozen=True): pass"
    assert lost_options(ast.parse(source)) == ["A"]


@pytest.mark.parametrize(
    "kind",
    [Cell, KeyError64, Window, RetryPolicy, ServerSettings, JudgedTotals, VersionTotals, ForwardSettings],
)
def test_values_are_never_changed(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (JudgedTotals(1, 2, 3, {"500": 1}, {4: 2}), [1, 2, 3, {"500": 1}, {"4": 2}]),
        (KeyError64(1, 2, 3), [1, 2, 3, "500"]),
        (Cell(1, 2, 3), {"generation": 1, "share": 2, "answers": 3}),
        (Window(1.0), {"seconds": 1.0}),
    ],
)
def test_what_is_sent_and_stored_has_one_form(value: msgspec.Struct, written: Any) -> None:
    """Guards an upgrade between plain and compiled: each must read what the other wrote."""
    assert msgspec.json.decode(msgspec.json.encode(value)) == written
