"""Where output goes, and what the environment says, may be anything: it ends in a line, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from gateway.cli.client import NO_ROUTE, AdminClient, Reply, refusal
from gateway.cli.exits import CliError
from gateway.worker.exchange import failures

RUN: Final = f"{sys.executable} -m gateway"


def shell(line: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=os.environ | more, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--version >&-", 0, ""),
        ("--version 2>&-", 0, ""),
        ("check --config /nonexistent >&- 2>&-", 2, ""),
        ("--version >/dev/full", 1, "the output cannot be written: No space left on device"),
        ("--help >/dev/full", 1, "the output cannot be written"),
        ("completion bash >/dev/full", 1, "the output cannot be written"),
    ],
)
def test_an_output_that_takes_nothing_is_no_traceback(line: str, code: int, says: str) -> None:
    """Guards: each of these ended in thirty lines of one."""
    done = shell(f"{RUN} {line}")
    assert done.returncode == code, done
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("token", ["gw_x y", "gw_a\nb", "ünï", "\x1b[31m", "€"])
def test_what_can_be_no_token_is_refused_and_not_shown(token: str) -> None:
    """Guards: a line break in GATEWAY_TOKEN was a traceback, with the token in it."""
    with pytest.raises(CliError, match="that is no token") as refused:
        AdminClient("http://127.0.0.1:1", token)
    assert refused.value.code == 2
    assert token not in str(refused.value)


def test_the_clients_port_is_not_taken_for_the_admin_one() -> None:
    told = refusal(Reply(404, b""), {"detail": NO_ROUTE}, has_token=True)
    assert "127.0.0.1:4201" in str(told)
    assert NO_ROUTE in Path(failures.__file__).read_text("utf-8"), "as a worker says it"
