"""Record the picture of the README: a release that is rolled back, as `gateway deploy --wait` shows it.

The command runs on a terminal of its own, with real traffic; what it draws is kept, and the frames that tell
the story are written as SVG.
"""

import argparse
import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from bench.client import request_head
from bench.harness import World
from bench.load import Load, LoadSettings

PICTURE: Final = Path(__file__).parent / "pictures" / "rollback.svg"
COLUMNS: Final = 108
RATE: Final = 200.0
BEFORE_S: Final = 12.0
"""Of traffic before the release, so that the rates shown are those of a service that runs."""
_REDRAW: Final = re.compile(
    r"(?:\r|\x1b\[2K|\x1b\[\d*A|\x1b\[\?25[lh])*\x1b\[\d*A(?:\r|\x1b\[2K|\x1b\[\d*A)*"
)
_FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""A picture in a repository fetches nothing: any monospaced font will do."""
_CONTROL: Final = re.compile(r"\x1b\[\?25[lh]|\x1b\[2K|\r")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("bench picture", description=__doc__)
    parser.add_argument("--file", type=Path, default=PICTURE)
    parser.add_argument("--demo", action="store_true", help="those of the demo instead; needs a browser")
    options = parser.parse_args(arguments)
    if options.demo:
        from bench.picture_demo import record

        return asyncio.run(record(PICTURE.parent))
    with tempfile.TemporaryDirectory() as folder:
        output = asyncio.run(recorded(Path(folder)))
    frames = frames_of(output)
    options.file.write_text(svg(chosen(frames)))
    print(f"{options.file}: {len(frames)} frames seen")
    return 0 if "rolled_back" in frames[-1] else 1


async def recorded(folder: Path) -> str:
    """Return what a terminal was sent while a bad version was released."""
    async with World(folder) as world:
        bad = world.add_sample("v1.1", "--error-rate", "0.1")
        load = Load(LoadSettings(port=world.port, rate=RATE, connections=16, cycle=("plain",)))
        load.heads["plain"] = request_head("GET", "/hello", host="bench.test")
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(1, until=enough), name="load")
            await asyncio.sleep(BEFORE_S)
            line = f"deploy auth v1.1 --url {bad.url} --steps 10,50,100 --step-interval 20s --wait"
            try:
                return await asyncio.to_thread(on_a_terminal, [*line.split(), "--config", str(world.config)])
            finally:
                enough.set()


def on_a_terminal(arguments: list[str]) -> str:
    """Run `gateway …` on a terminal of its own; returns all it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES="40")
        os.execv(sys.executable, [sys.executable, "-m", "gateway", *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    written = bytearray()
    try:
        while data := os.read(terminal, 65_536):
            written += data
    except OSError:  # the terminal is gone with its last process
        pass
    os.close(terminal)
    os.waitpid(pid, 0)
    return written.decode("utf-8", "replace")


def frames_of(output: str) -> list[str]:
    """Return each state of the terminal's block, with what was written before and after."""
    return [_CONTROL.sub("", frame).strip("\n") for frame in _REDRAW.split(output) if frame.strip()]


def chosen(frames: list[str]) -> list[str]:
    """Return the frames that tell the story: how it began, a moment before the end, and the end."""
    rolling = [frame for frame in frames[1:] if "rolling" in frame]
    return [frames[0], *rolling[-1:], frames[-1]]


def svg(frames: list[str]) -> str:
    """Return the frames, one below the other, as a picture of a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(
        Text("$ gateway deploy auth v1.1 --url http://127.0.0.1:7201 --steps 10,50,100 --wait", "bold")
    )
    for frame in frames:
        console.print(Text.from_ansi(frame))
        console.print()
    picture = console.export_svg(title="a bad release, taken back", unique_id="rollback")
    return _FONT.sub("", picture)
