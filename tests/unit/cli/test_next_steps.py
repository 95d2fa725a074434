"""Every refusal says what to do next, and every command that a text of ours names is one."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from gateway.actions.problems import LISTED_BY
from gateway.cli.commands import root

PACKAGE: Final = Path(__file__).parents[3] / "gateway"
SAYS: Final = re.compile(
    r"`gateway |gateway \w+|--\w|such as |use the |GATEWAY_|\bstart it\b|systemctl|same line"
)
"""What a text has that says how to go on: a command, an option, an example."""
BY_ITSELF: Final = {
    "no answer from {} within {} s": "nobody knows whether it was done",
    "the answer of {} broke off: {}": "the reason behind it says it",
    "the event stream of {} went silent": "the reason behind it says it",
    "the event stream of {} broke: {}": "the reason behind it says it",
    "the admin API answered with something that is not JSON": "whoever listens there is not ours",
    "{}: cannot be read: {}": "a file's name, and why",
    "a file of {} cannot be used: {}": "a file's name, and why",
    "{}: {}": "a file's name, and why",
}
"""Texts without a next step -> why."""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text("utf-8"))


def text_of(node: ast.expr) -> str | None:
    """Return a text as written, braces for what is filled in; None: the expression is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(text_of(each) or "{}" for each in values)
        case ast.BinOp(left=left, right=right):
            return f"{text_of(left) or '{}'}{text_of(right) or '{}'}"
    return None


def refusals(name: str) -> Iterator[tuple[Path, int, ast.Call]]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield path, node.lineno, node


def texts() -> Iterator[tuple[str, str]]:
    """Yield where and what: every text of the package, but for those that document."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant | ast.JoinedStr) and (text := text_of(node)):
                yield f"{path}:{node.lineno}", text


def test_every_refusal_of_the_command_line_says_what_to_do_next() -> None:
    silent, used = [], set()
    for name in ("CliError", "Unreachable"):
        for path, line, call in refusals(name):
            text = text_of(call.args[0])
            if text is None or SAYS.search(text):
                continue
            if text in BY_ITSELF:
                used.add(text)
            else:
                silent.append(f"{path}:{line}: {text}")
    assert silent == []
    assert used == BY_ITSELF.keys(), "what is said no more needs no reason"


def test_every_conflict_says_how_to_get_out_of_it() -> None:
    """A 409 is no mistake of whoever asks: there is a way on, and the gateway knows it."""
    found = list(refusals("conflict"))
    assert len(found) > 25, "it still looks where they are made"
    assert [
        f"{path}:{line}" for path, line, call in found if len(call.args) != 2 or text_of(call.args[1]) == ""
    ] == []


def test_what_is_not_found_says_what_lists_it() -> None:
    kinds = {(text_of(call.args[0]) or "").split()[0] for _, _, call in refusals("not_found")}
    assert kinds == LISTED_BY.keys()


def test_every_unavailability_says_when_to_come_again_or_what_to_do() -> None:
    found = [
        (f"{path}:{line}", {each.arg for each in call.keywords})
        for path, line, call in refusals("Problem")
        if isinstance(call.args[0], ast.Constant) and call.args[0].value in (429, 503)
    ]
    assert found
    assert [where for where, given in found if not given & {"retry_after_s", "next_step"}] == []


def shown() -> list[tuple[str, str]]:
    found = []
    for where, text in texts():
        found += [(where, line) for line in re.findall(r"`gateway ([^`{][^`]*)`", text)]
    return found


def test_every_command_that_a_text_names_is_one() -> None:
    found = shown()
    assert len(found) > 40
    wrong = [f"{where}: gateway {line}" for where, line in found if not is_command(line)]
    assert wrong == []


def is_command(line: str) -> bool:
    """Whether the command of a line exists, takes its options, and as many words."""
    command: click.Command = root
    words = shlex.split(line.replace("{}", "X"))
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        return False
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    takers = {
        name
        for each in command.params
        if isinstance(each, click.Option) and not each.is_flag
        for name in each.opts
    }
    places = [each for each in command.params if isinstance(each, click.Argument)]
    plain = 0
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-"):
            if word not in options | {"--help"}:
                return False
        elif before not in takers:
            plain += 1
    return plain <= len(places) or any(each.nargs == -1 for each in places)


@pytest.mark.parametrize("line", ["get X --nonsense", "gett X", "rollback X Y Z", "token rotat X"])
def test_a_wrong_command_would_be_found(line: str) -> None:
    assert not is_command(line)
