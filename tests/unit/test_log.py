"""The event log loses what it cannot write, and breaks nothing by it."""

import ast
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
import structlog

from gateway import log


class FullDisk(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_breaks_nothing() -> None:
    """The line may tell of a rollback, in the middle of it."""
    log.configure(stream=FullDisk())
    try:
        log.get_logger(component="test").error("something_happened")
    finally:
        structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(stream: io.StringIO) -> str:
    log.configure(stream=stream)
    try:
        try:
            raise ValueError("a reason")
        except ValueError:
            log.get_logger(component="test").error("something_happened", service="auth", exc_info=True)
    finally:
        structlog.reset_defaults()
    return stream.getvalue()


def test_a_file_gets_a_json_object_a_line() -> None:
    line = json.loads(logged(io.StringIO()))
    assert (line["component"], line["service"], line["event"]) == ("test", "auth", "something_happened")
    assert "a reason" in line["exception"]


def test_a_terminal_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = logged(Terminal())
    assert "something_happened" in text
    assert "service=auth" in text
    assert "a reason" in text
    assert not text.startswith("{")


# What events say

EVENTS: Final = ("debug", "info", "warning", "error", "exception")
LOGGERS: Final = ("log", "logger", "event_log")
OF_A_SERVICE: Final = {"deployment", "version"}
PACKAGE: Final = Path(log.__file__).parent


def calls(module: Path) -> list[tuple[str, list[str | None]]]:
    """Return each event that a module logs, with the names of what it says; None: it is unpacked."""
    found = []
    for node in ast.walk(ast.parse(module.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of: Any = node.func.value
        if node.func.attr in EVENTS and isinstance(of, ast.Name) and of.id in LOGGERS:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else "one_of_several"
            found.append((str(name), [each.arg for each in node.keywords]))
    return found


@pytest.mark.parametrize(
    "module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_events_name_their_component_and_the_service_they_are_about(module: Path) -> None:
    text = module.read_text()
    assert "logging.getLogger" not in text.replace("logging.getLevelNamesMapping", "")
    if module.name != "log.py":
        assert text.count("get_logger(") == text.count("get_logger(component=")
    for event, said in calls(module):
        assert event.replace("_", "").islower(), event
        if OF_A_SERVICE & {each for each in said if each}:
            assert {"service", None} & set(said), event
