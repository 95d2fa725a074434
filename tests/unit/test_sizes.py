"""What outgrows a reader's screen is split before it lands, not when somebody notices."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted([*(ROOT / "gateway").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
MOST_LINES: Final = 500
LONGEST_FUNCTION: Final = 50


def lengths(source: str) -> dict[str, int]:
    """Return how many lines each function of a file has, by name and line."""
    return {
        f"{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_no_file_has_more_than_500_lines() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_no_function_has_more_than_50_lines() -> None:
    found = {str(path.relative_to(ROOT)): lengths(path.read_text("utf-8")) for path in FILES}
    long = {
        f"{name} {function}": size
        for name, functions in found.items()
        for function, size in functions.items()
        if size > LONGEST_FUNCTION
    }
    assert long == {}


def test_a_long_function_is_seen() -> None:
    """Guards the measure itself."""
    assert lengths("async def f():\n" + "    g()\n" * 50) == {"f:1": 51}
