"""`gateway logs`: the access log and the event log in one, as they come."""

import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import click

from gateway import config
from gateway.cli.client import AdminClient
from gateway.cli.connect import chosen_config, client_command
from gateway.cli.exits import OK, USAGE, CliError
from gateway.cli.operate import event_line
from gateway.cli.options import any_service_argument
from gateway.cli.output import Output
from gateway.cli.text import local_time, print_line, printable
from gateway.errors import ConfigError

EVENTS: Final = 200
"""What one call for events gives at most."""
TAIL_BYTES: Final = 4_000_000
"""How far back the access log is read for its last lines."""
LOOK_EVERY_S: Final = 0.25
RETRY_S: Final = 1.0
_COMBINED: Final = re.compile(rb'^(?P<client>\S+) \S+ \S+ \[[^\]]*\] "(?P<request>[^"]*)" (?P<status>\d{3}) ')
_STATUS: Final = re.compile(r"^[1-5](\d\d|xx)$")


class Wanted(NamedTuple):
    """Which lines are wanted; None: any."""

    service: str | None
    version: str | None
    status: str | None

    def has_request(self, line: dict[str, Any]) -> bool:
        """Whether a line of the access log is wanted."""
        return (
            self.service in (None, line.get("service"))
            and self.version in (None, line.get("version"))
            and (self.status is None or _is_status(self.status, line.get("status")))
        )

    def has_event(self, event: dict[str, Any]) -> bool:
        """Whether an event is wanted: none, where a status is asked for."""
        is_about = self.service in (None, event["service"]) and self.version in (None, event.get("version"))
        return is_about and self.status is None


class Said(NamedTuple):
    """One line of either log. at: RFC 3339."""

    at: str
    kind: str
    value: dict[str, Any]

    def text(self) -> str:
        return event_line(self.value) if self.kind == "event" else request_line(self.value)

    def as_json(self) -> str:
        return json.dumps({"log": self.kind, **self.value}, ensure_ascii=False)


def _status(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Take `404` or `5xx`."""
    if text is not None and not _STATUS.match(text):
        raise click.BadParameter(f"{text!r} is not a status such as 404 or 5xx")
    return text


@click.command()
@client_command
@any_service_argument
@click.option("-f", "--follow", is_flag=True, help="Stay, and print what comes.")
@click.option("-n", "--limit", type=click.IntRange(0, 10_000), default=50, show_default=True)
@click.option("--version", help="Only of this version.")
@click.option("--status", callback=_status, help="Only requests with this status: 404, or 5xx.")
@click.option("--access", "which", flag_value="access", help="Only the access log.")
@click.option("--events", "which", flag_value="events", help="Only the event log.")
@click.option("--file", type=click.Path(dir_okay=False), help="The access log; default: access_log.path.")
def logs(
    api: AdminClient,
    out: Output,
    service: str | None,
    follow: bool,
    limit: int,
    version: str | None,
    status: str | None,
    which: str | None,
    file: str | None,
) -> int:
    """Print the access log and the events, oldest first: what clients got, beside what was done."""
    wanted = Wanted(service, version, status)
    path = None if which == "events" else access_log(out, file, must_exist=which == "access")
    has_events = which != "access" and status is None
    log = click.get_current_context().with_resource(Followed(path, wanted)) if path is not None else None
    found = log.last(limit) if log is not None else []
    last_id: str | None = None
    if has_events:
        events = api.get("events", serviceName=service, limit=max(1, min(limit, EVENTS)))["items"]
        if limit > len(events) == EVENTS:
            out.note(f"of events only the newest {EVENTS} are shown")
        last_id = str(events[-1]["id"]) if events else None
        found += [Said(each["at"], "event", each) for each in events if wanted.has_event(each)]
    say = _printer(out)
    for each in sorted(found, key=lambda said: said.at)[len(found) - limit if len(found) > limit else 0 :]:
        say(each)
    if follow:
        come: queue.Queue[Said] = queue.Queue()
        if has_events:
            listening = threading.Thread(target=_listen, args=(api, wanted, last_id, come), daemon=True)
            listening.start()
        _stay(log, come, say)
    return OK


def _printer(out: Output) -> Callable[[Said], None]:
    return lambda said: print_line(said.as_json() if out.is_json else said.text())


def access_log(out: Output, file: str | None, *, must_exist: bool) -> Path | None:
    """Return the access log's file; None if there is none to read, which is said."""
    if file is None:
        try:
            settings = config.load(chosen_config()).access_log
        except ConfigError as exc:
            raise CliError(str(exc), USAGE) from exc
        if settings.format == "off":
            return _without(out, 'it is off: set access_log.format = "json"', must_exist=must_exist)
        if settings.path == "-":
            where = "it goes to the gateway's standard output (journalctl -u gateway, docker logs)"
            return _without(out, where, must_exist=must_exist)
        file = settings.path
    path = Path(file)
    return path if path.exists() else _without(out, f"there is no {path} here", must_exist=must_exist)


def _without(out: Output, why: str, *, must_exist: bool) -> Path | None:
    line = f"no access log to read: {why}; --file FILE reads another"
    if must_exist:
        raise CliError(line)
    out.note(line)
    return None


# -- the access log


class Followed:
    """A file that grows, and may be rotated."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path = path
        self._wanted = wanted
        self._file = path.open("rb")
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def last(self, limit: int) -> list[Said]:
        """Return the newest wanted lines, and go on from the end."""
        size = self._file.seek(0, 2)
        self._file.seek(max(0, size - TAIL_BYTES))
        data = self._file.read()
        if size > TAIL_BYTES:
            data = data.partition(b"\n")[2]
        found = list(self._take(data))
        return found[-limit:] if limit else []

    def new(self) -> Iterator[Said]:
        """Yield the wanted lines that came since; a file that was moved away is left for its successor."""
        yield from self._take(self._file.read())
        try:
            there = self._path.stat()
        except OSError:
            return
        mine = self._file.tell()
        if (there.st_ino, there.st_dev) != _identity(self._file.fileno()) or there.st_size < mine:
            self._file.close()
            self._file, self._rest = self._path.open("rb"), b""
            yield from self._take(self._file.read())

    def _take(self, data: bytes) -> Iterator[Said]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            line = parsed(raw)
            if line is not None and self._wanted.has_request(line):
                yield Said(str(line.get("ts", "")), "access", line)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_ino, found.st_dev


def parsed(raw: bytes) -> dict[str, Any] | None:
    """Return a line of the access log, JSON or combined; None for what is neither."""
    if raw.startswith(b"{"):
        try:
            line = json.loads(raw)
        except ValueError:
            return None
        return line if isinstance(line, dict) and "status" in line else None
    match = _COMBINED.match(raw)
    if match is None:
        return None
    method, _, target = match["request"].decode("ascii", "replace").partition(" ")
    time_of = raw.partition(b"[")[2].partition(b"]")[0].decode("ascii", "replace")
    try:
        at = datetime.strptime(time_of, "%d/%b/%Y:%H:%M:%S %z").isoformat()
    except ValueError:
        at = ""
    target = target.rpartition(" ")[0] or target
    return {"ts": at, "method": method, "path": target, "status": int(match["status"])}


def request_line(line: dict[str, Any]) -> str:
    """Return a request as people read it."""
    about = " ".join(part for part in (line.get("service"), line.get("version")) if part) or "-"
    took = f"{line['duration_ms']:.1f}ms" if "duration_ms" in line else ""
    what = f"{line.get('method', '')} {line.get('path', '')}"
    parts = (local_time(line.get("ts")), str(line["status"]), f"{about:<20}", f"{took:>9}", what)
    return str(printable("  ".join((*parts, " ".join(line.get("flags", ())))))).rstrip()


def _is_status(wanted: str, status: object) -> bool:
    return str(status) == wanted or (wanted.endswith("xx") and str(status)[:1] == wanted[0])


# -- following


def _stay(log: Followed | None, come: "queue.Queue[Said]", say: Callable[[Said], None]) -> None:
    """Print what comes, until Ctrl-C."""
    while True:
        for said in log.new() if log is not None else ():
            say(said)
        while not come.empty():
            say(come.get())
        time.sleep(LOOK_EVERY_S)


def _listen(api: AdminClient, wanted: Wanted, last_id: str | None, come: "queue.Queue[Said]") -> None:
    """Hand events over as they come; a stream that breaks is taken up where it was."""
    while True:
        try:
            for event in api.events("events", last_id=last_id, serviceName=wanted.service):
                last_id = event.id
                if wanted.has_event(event.data):
                    come.put(Said(event.data["at"], "event", event.data))
        except CliError:
            pass
        time.sleep(RETRY_S)


COMMANDS: Final = (logs,)
