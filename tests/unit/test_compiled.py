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
from gateway.link.totals import JudgedTotals, VersionTotals
from gateway.worker.exchange.request_head import ForwardSettings

ROOT: Final = Path(__file__).parents[2]


def compiled() -> list[str]:
    spec = importlib.util.spec_from_file_location("build", ROOT / ".ci/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.COMPILED)


def lost_structs(tree: ast.Module) -> list[str]:
    """Return the structs that mypyc would make others of: all but values that are never decoded."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [node.name for node in classes if is_struct(node)]


def is_struct(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(base) for base in node.bases}
    is_value = bases == {"Value"} and {keyword.arg for keyword in node.keywords} <= {"frozen"}
    return not is_value and bool(node.keywords or bases & {"msgspec.Struct", "Struct", "Settings"})


@pytest.mark.parametrize("path", compiled())
def test_what_is_decoded_is_not_compiled(path: str) -> None:
    """mypyc drops a struct's options and what its lists hold.

    Compiled settings were not checked, and no counts of a worker could be read: nothing was ever judged.
    """
    assert lost_structs(ast.parse((ROOT / "gateway" / path).read_text("utf-8"))) == []


def test_lost_structs_are_seen() -> None:
    """Guards the walker above."""
    source = "class A(msgspec.Struct): x: int\nclass B(Settings): x: int\nclass C(A, tag=True): pass\n"
    assert lost_structs(ast.parse(source + "class D(Value, frozen=True): x: int\nclass E: pass")) == list(
        "ABC"
    )


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
