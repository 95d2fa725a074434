"""A PostgreSQL of the tests' own: one server a process, an empty database for whoever asks.

It keeps its files in a temporary folder, listens on a free port of 127.0.0.1 and on a socket there, and loses
what it had when the machine stops: it is not for keeping anything.
"""

import asyncio
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
from collections.abc import Callable, Coroutine
from contextlib import suppress
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
        subprocess.run(["cp", "-a", str(_pristine()), str(self.data)], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def give(self, name: str, content: bytes) -> None:
        """Put a file into its folder, for its eyes only."""
        file = self.data / name
        file.write_bytes(content)
        file.chmod(0o600)
        owner = self.data.stat()
        os.chown(file, owner.st_uid, owner.st_gid)

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

    def keep(self) -> None:
        """Put its files aside as they are. It must not run."""
        shutil.rmtree(self.folder / "kept", ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.data), str(self.folder / "kept")], check=True)

    def go_back(self) -> None:
        """Have what was put aside again, and lose what came after, as a member that lagged behind."""
        self.stop()
        shutil.rmtree(self.data)
        subprocess.run(["cp", "-a", str(self.folder / "kept"), str(self.data)], check=True)
        self.start()

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


def _of_this_run(suffix: str) -> Path:
    """Return a path that all processes of one test run share, and no other run."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    return Path(tempfile.gettempdir(), f"gateway-pg-{os.getppid() if is_worker else os.getpid()}{suffix}")


def _note() -> Path:
    """Return where the processes of one test run tell each other of their server."""
    return _of_this_run(".json")


def _pristine() -> Path:
    """Return the files of a server that has never run: to copy them takes a fraction of initdb's time."""
    folder = _of_this_run("-pristine")
    with _of_this_run(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "data").exists():
            folder.mkdir(exist_ok=True)
            command = [str(found("initdb")), "-D", str(folder / "draft"), "-U", USER, "-A", "trust", "-N"]
            become = _not_root(folder)
            command += ["-E", "UTF8", "--locale=C"]
            subprocess.run(command, check=True, capture_output=True, preexec_fn=become)
            (folder / "draft").rename(folder / "data")
    return folder / "data"


_attached: list[Server] = []


def shared() -> Server:
    """Return the server that all tests of this run share: each makes a database of its own there.

    Whoever asks first starts it; the run's first process removes it (`remove_shared`).
    """
    if not _attached:
        with _note().open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            if not text:
                _attached.append(_started())
                file.write(json.dumps({"folder": str(_attached[0].folder), "port": _attached[0].port}))
            else:
                note = json.loads(text)
                _attached.append(Server.attached(Path(note["folder"]), note["port"]))
    return _attached[0]


def _started() -> Server:
    server = Server()
    server.start()
    server.migrated_template()
    assert server._process is not None
    server._process.returncode = 0  # it outlives us: no complaint that it was not waited for
    return server


def remove_shared() -> None:
    """End this run's server, if it has one, and take its files away: when all tests are over."""
    with suppress(FileNotFoundError):
        folder = Path(json.loads(_note().read_text())["folder"])
        pid = int((folder / "data/postmaster.pid").read_text().split()[0])
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
            for _ in range(200):
                os.kill(pid, 0)
                if _is_zombie(pid):
                    break
                time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)
    for each in (_note(), _of_this_run(".lock")):
        each.unlink(missing_ok=True)
    shutil.rmtree(_of_this_run("-pristine"), ignore_errors=True)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
