"""A PostgreSQL of the tests' own: one server a process, an empty database for whoever asks.

It keeps its files in a temporary folder, listens on a free port of 127.0.0.1 and on a socket there, and loses
what it had when the machine stops: it is not for keeping anything.
"""

import asyncio
import atexit
import fcntl
import importlib.util
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

USER: Final = "gateway"
FOLDERS: Final = ("/usr/local/bin", "/usr/bin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))))
FAST: Final = (
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=60",
    "autovacuum=off",
)


def found(program: str) -> str | None:
    """Return where a program of PostgreSQL is; None: nowhere."""
    return shutil.which(program, path=os.pathsep.join(FOLDERS))


def missing() -> str:
    """Return why no server can be started; empty: one can."""
    if importlib.util.find_spec("asyncpg") is None:
        return "asyncpg is not installed"
    absent = [program for program in ("initdb", "postgres") if found(program) is None]
    return f"PostgreSQL's {' and '.join(absent)} are not installed" if absent else ""


needs_postgres = pytest.mark.skipif(bool(missing()), reason=missing())


class Server:
    """One server, and its life: it can be stopped, killed, frozen and started again."""

    def __init__(self, *settings: str) -> None:
        """settings: `name=value`, besides those of FAST."""
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-pg-"))
        self.data = self.folder / "data"
        self.settings = [*FAST, *settings]
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self._become = _not_root(self.folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        command = [str(found("initdb")), "-D", str(self.data), "-U", USER, "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run([*command, "--locale=C"], check=True, capture_output=True, preexec_fn=self._become)

    def start(self) -> None:
        """Start it; it answers when this returns."""
        options = [part for each in self.settings for part in ("-c", each)]
        command = [str(found("postgres")), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-k", str(self.folder), *options],
                stdout=log,
                stderr=log,
                preexec_fn=self._become,
                start_new_session=True,
            )
        for _ in range(600):
            if self._answers():
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    @classmethod
    def attached(cls, folder: Path, port: int) -> "Server":
        """Return a server that another process has started."""
        server = cls.__new__(cls)
        server.folder, server.port, server._process = folder, port, None
        server._names = itertools.count(1)
        return server

    @property
    def pid(self) -> int:
        """Return its first process."""
        assert self._process is not None
        return self._process.pid

    def migrated_template(self) -> None:
        """Make the database that `migrated` copies."""
        self.sql("CREATE DATABASE template_of_gateway")
        _beside(lambda: _migrate(self.url("template_of_gateway")))

    def migrated(self) -> str:
        """Make a database that holds an empty store: quicker than to migrate one. Returns its url."""
        name = f"m{os.getpid()}_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template_of_gateway")
        return self.url(name)

    def _answers(self) -> bool:
        try:
            self.sql("SELECT 1")
        except Exception:
            return False
        return True

    def url(self, database: str = "postgres") -> str:
        """Return what leads to a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Make an empty database. Returns its url."""
        name = f"d{os.getpid()}_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def sql(self, statement: str, url: str | None = None) -> str:
        """Run a statement. Returns what the server says of it."""
        import asyncpg

        async def run() -> str:
            connection = await asyncpg.connect(url or self.url(), timeout=5)
            try:
                done: str = await connection.execute(statement)
                return done
            finally:
                await connection.close()

        return _beside(run)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT at once and in order; SIGQUIT as a crash, without a word to anybody's disk."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def crash(self) -> None:
        """Kill every process of it, as a power cut would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._process = None

    def freeze(self) -> None:
        """Stop every process of it where it is."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        parent = self._process.pid
        os.kill(parent, number)
        for each in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = each.read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    os.kill(int(each.parent.name), number)
            except (OSError, ValueError):
                continue

    def remove(self) -> None:
        """End it, and take its files away."""
        if self._process is not None:
            self.thaw()
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


async def _migrate(url: str) -> None:
    from gateway.store.opening import open_store

    await (await open_store(url, now=datetime.now(UTC))).close()


def _beside(run: Callable[[], Coroutine[Any, Any, object]]) -> str:
    """Run a coroutine to its end, whether or not a loop runs here."""
    results: list[object] = []

    def work() -> None:
        try:
            results.append(asyncio.run(run()))
        except BaseException as exc:
            results.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return str(results[0])


def _not_root(folder: Path) -> Callable[[], None] | None:
    """Return what makes a child somebody else: PostgreSQL does not run as root. None: we are not."""
    if os.getuid() != 0:
        return None
    names = {each.pw_name: each for each in pwd.getpwall()}
    somebody = names.get("postgres") or names["nobody"]
    os.chown(folder, somebody.pw_uid, somebody.pw_gid)

    def become() -> None:
        os.setgroups([])
        os.setgid(somebody.pw_gid)
        os.setuid(somebody.pw_uid)

    return become


class _Shared:
    """The one server of a test run: whoever asks first starts it, whoever ends last removes it."""

    def __init__(self) -> None:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"alone-{os.getpid()}")
        self._note = Path(tempfile.gettempdir(), f"gateway-pg-{run}.json")
        self._server: Server | None = None

    def server(self) -> Server:
        if self._server is None:
            with self._noted() as note:
                if not note:
                    self._server = Server()
                    self._server.start()
                    self._server.migrated_template()
                    note |= {"folder": str(self._server.folder), "port": self._server.port, "users": 0}
                    note["pid"] = self._server.pid
                else:
                    self._server = Server.attached(Path(note["folder"]), note["port"])
                note["users"] += 1
            atexit.register(self._leave)
        return self._server

    def _leave(self) -> None:
        with self._noted() as note:
            note["users"] -= 1
            if self._server is not None and self._server._process is not None:
                self._server._process.returncode = 0  # who leaves last ends it, or the worker's end does
            if note["users"]:
                return
            with suppress(ProcessLookupError):
                os.kill(note["pid"], signal.SIGQUIT)
            shutil.rmtree(note["folder"], ignore_errors=True)
        self._note.unlink(missing_ok=True)

    @contextmanager
    def _noted(self) -> Iterator[dict[str, Any]]:
        """Read what the workers of this run know of the server, and write it back; one of them at a time."""
        with self._note.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            note = json.loads(text) if text else {}
            yield note
            file.truncate(0)
            file.write(json.dumps(note))


_shared: Final = _Shared()


def shared() -> Server:
    """Return the server that all tests of this run share: each makes a database of its own there."""
    return _shared.server()
