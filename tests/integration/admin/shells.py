"""Shells as people have them: the scripts of completion where the help says, and Tab pressed."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

DEADLINE_S: Final = 60.0
ZSHRC: Final = """
unsetopt zle_bracketed_paste beep
fpath=(~/.zfunc $fpath)
autoload -Uz compinit && compinit -u
said() { print -r -- "$BUFFER" >~/said.new; mv ~/said.new ~/said; BUFFER=; zle accept-line }
zle -N said
bindkey '^I' expand-or-complete
bindkey '^O' said
: >~/ready
"""
"""As `gateway completion --help` says; Control-O writes the line down and clears it."""


def missing(shell: str) -> bool:
    return shutil.which(shell) is None


def fish(lines: tuple[str, ...], script: str, home: Path, env: dict[str, str]) -> list[list[str]]:
    """Return what fish offers for each line."""
    place = home / ".config/fish/completions/gateway.fish"
    place.parent.mkdir(parents=True)
    place.write_text(script)
    offered = []
    for line in lines:
        done = subprocess.run(
            ["fish", "-c", "complete --do-complete $argv[1]", line],
            env={**env, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
        offered.append([each.split("\t")[0] for each in done.stdout.splitlines()])
    return offered


def zsh(lines: tuple[str, ...], script: str, home: Path, env: dict[str, str]) -> list[list[str]]:
    """Return the words that each line has in zsh once Tab is pressed at its end."""
    place = home / ".zfunc/_gateway"
    place.parent.mkdir(parents=True)
    place.write_text(script)
    (home / ".zshrc").write_text(ZSHRC)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-i"], {**env, "HOME": str(home), "ZDOTDIR": str(home), "TERM": "dumb"})
    try:
        _until(home / "ready", terminal)
        return [_pressed(line, home / "said", terminal).split() for line in lines]
    finally:
        os.close(terminal)  # it hangs up
        os.waitpid(pid, 0)


def _pressed(line: str, said: Path, terminal: int) -> str:
    said.unlink(missing_ok=True)
    os.write(terminal, f"{line}\t\x0f".encode())
    _until(said, terminal)
    return said.read_text()


def _until(file: Path, terminal: int) -> None:
    """Wait for a file, and take what the shell prints meanwhile."""
    ends_at, seen = time.monotonic() + DEADLINE_S, b""
    while not file.exists():
        assert time.monotonic() < ends_at, seen
        if select.select([terminal], [], [], 0.05)[0]:
            seen += os.read(terminal, 65_536)
