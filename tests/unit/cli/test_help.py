"""The command line explains itself: every command in a group, with examples where one is not obvious."""

import os
import shlex
import shutil
import subprocess
import sys
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from gateway.cli import helping
from gateway.cli.client import Reply, refusal
from gateway.cli.commands import root

Capture = pytest.CaptureFixture[str]


def test_every_command_has_its_group_and_a_short_line(cli: Any, capsys: Capture) -> None:
    grouped = {name for names in helping.SECTIONS.values() for name in names}
    assert set(root.commands) <= grouped
    assert set(root.commands) <= helping.SHORT.keys()
    assert cli("--help") == 0
    out = capsys.readouterr().out
    assert "Further:" not in out
    for text in (*helping.SECTIONS, "GATEWAY_ADMIN_URL", "GATEWAY_TOKEN", "Exit codes", "denied"):
        assert text in out


@pytest.mark.parametrize("name", sorted(root.commands))
def test_every_help_says_where_the_shared_options_are(cli: Any, name: str, capsys: Capture) -> None:
    assert cli(name, "--help") == 0
    out = capsys.readouterr().out
    assert "gateway --help" in out
    assert "--admin-url" not in out, "explained once, not everywhere"
    for example in helping.EXAMPLES.get(name, ()):
        assert example in out


@pytest.mark.parametrize(
    "line", [line for lines in helping.EXAMPLES.values() for line in lines], ids=lambda line: line[:40]
)
def test_examples_are_lines_the_parser_takes(line: str) -> None:
    """An example that is refused for its options teaches the wrong thing."""
    for part in line.replace("|", "&&").split("&&"):
        words = _words(part)
        if not words or words[0] != "gateway" or words[1] not in root.commands:
            continue
        command: click.Command = root.commands[words[1]]
        arguments = words[2:]
        if isinstance(command, click.Group):
            command, arguments = command.commands[arguments[0]], arguments[1:]
        command.make_context(words[1], arguments, resilient_parsing=False)


def _words(text: str) -> list[str]:
    words = shlex.split(text)
    return words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize(
    ("typed", "meant"), [*helping.ELSEWHERE.items(), ("rolback", "rollback"), ("statsu", "status")]
)
def test_another_tools_word_leads_to_ours(cli: Any, typed: str, meant: str, capsys: Capture) -> None:
    """`ls` was answered with a question about `logs`."""
    assert typed not in root.commands
    assert cli(typed) == 2
    said = capsys.readouterr().err
    assert meant in said.partition("Did you mean")[2]


# -- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_the_shell_takes(cli: Any, shell: str, capsys: Capture, tmp_path: Any) -> None:
    assert cli("completion", shell) == 0
    script = capsys.readouterr().out
    assert "_GATEWAY_COMPLETE" in script
    program = shutil.which(shell)
    if program is not None:
        file = tmp_path / "completion"
        file.write_text(script)
        check = [program, "--no-execute" if shell == "fish" else "-n", str(file)]
        assert subprocess.run(check, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "gateway roll"), ("zsh", "gateway roll"), ("fish", "gateway roll")]
)
def test_what_is_begun_is_completed(shell: str, words: str) -> None:
    found = completed(shell, words, "1" if shell != "fish" else "roll")
    assert "rollback" in found
    assert "deploy" not in found


def completed(shell: str, words: str, position: str) -> str:
    """Return what the shell's script would be told."""
    asked = {"_GATEWAY_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": position}
    done = subprocess.run(
        [sys.executable, "-c", "from gateway.cli.commands import run; run([])"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_names_of_services_are_completed(api: Any, made: Any) -> None:
    api.answers |= {
        "GET services": made.page({"name": "auth"}, {"name": "shop"}),
        "GET deployment/versions": made.page(made.version(), made.version(version="v2.0")),
    }
    complete = ShellComplete(root, {}, "gateway", "_GATEWAY_COMPLETE")
    assert [each.value for each in complete.get_completions(["rollback"], "a")] == ["auth"]
    assert [each.value for each in complete.get_completions(["drain", "auth"], "v1")] == ["v1.1"]


# -- refusals


def test_a_refusal_ends_with_what_the_gateway_says_to_do_next() -> None:
    problem = {"detail": "no service 'x'", "next": "`gateway get` lists those there are"}
    assert str(refusal(Reply(404, b""), problem, has_token=True)) == f"{problem['detail']}: {problem['next']}"
    assert str(refusal(Reply(404, b""), {"detail": "no"}, has_token=True)) == "no", "as of an older gateway"


def test_a_refusal_says_when_to_come_again(api: Any, cli: Any, capsys: Capture) -> None:
    api.answers["GET overview"] = (429, {"detail": "too many calls"}, "12")
    assert cli("get") == 1
    assert capsys.readouterr().err == "gateway: too many calls; try again in 12 s\n"
