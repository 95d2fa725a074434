"""A demo plays what it says, gives commands that work, and leaves nothing behind, however it ends."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

import pytest

from gateway.demo.keeper import processes
from tests.integration.processes.harness import ROOT, wait_until

PATIENCE_S = 100.0

pytestmark = pytest.mark.timeout(300)


class Demo:
    """A demo at a terminal: what it printed so far, and its folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._screen = folder / "screen"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
        with self._screen.open("w") as screen:
            command = [sys.executable, "-m", "gateway", "demo", *options]
            self.process = subprocess.Popen(command, stdout=screen, stderr=screen, env=self._env, cwd=folder)
        wait_until(lambda: any(folder.glob("gateway-demo-*")), "a folder of its own")
        self.folder = next(folder.glob("gateway-demo-*"))

    @property
    def said(self) -> str:
        return self._screen.read_text()

    def until(self, pattern: str) -> str:
        """Return the first line that matches, once there is one."""
        try:
            found = wait_until(lambda: re.search(f".*{pattern}.*", self.said), pattern, PATIENCE_S)
        except AssertionError:
            raise AssertionError(self.said) from None
        return str(found[0])

    def shell(self, line: str) -> str:
        """Run a line the demo gave, as it is, from elsewhere."""
        return subprocess.run(
            line, shell=True, check=True, capture_output=True, text=True, env=self._env, cwd="/"
        ).stdout

    def is_gone(self) -> bool:
        return not self.folder.exists() and not processes(self.folder)


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Demo]:
    running = Demo(folder, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        wait_until(running.is_gone, "nothing to be left")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def visit(link: str) -> Message:
    """Return the fields of the redirect a link is answered with."""
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.build_opener(NoRedirect).open(link, timeout=30)
    with answer.value as redirect:
        return redirect.headers


def test_it_plays_stays_and_is_gone_when_it_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        link = re.findall(r"http://\S+", running.until("sign-in"))[0]
        assert "gateway_session=" in visit(link)["Set-Cookie"]
        assert visit(link)["Set-Cookie"] is None
        running.until("completed +100 % on v1.1")
        running.until("rolled_back +0 % on v1.2 .* fails")
        assert re.search(r"each inside v1\.2 itself; 0 were lost", running.until("lost on the way"))
        line = running.until("touch /")
        running.until("rolling +10 % on v1.3")
        running.shell(line)
        running.until("rolled_back +0 % on v1.3 .* fails")
        assert "v1.1 → v1.3" in running.shell(running.until(" why shop"))
        running.shell(running.until("rm -f .* deploy shop v1.3"))
        assert link.partition("code=")[2] not in (running.folder / "gateway.log").read_text()
        running.process.kill()
        wait_until(running.is_gone, "nothing to be left")


def test_it_ends_in_order_on_a_signal(tmp_path: Path) -> None:
    with demo(tmp_path, "--headless") as running:
        running.until("load +120 requests")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 130
        assert running.is_gone()
        assert "nothing is left" in running.said
