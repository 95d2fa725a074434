"""Follow a rollout, or all services, until it ends or somebody has seen enough."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.cli import overview, progress, waiting
from gateway.cli.client import AdminClient
from gateway.cli.exits import INTERRUPTED, CliError, Unreachable
from gateway.cli.output import Output
from gateway.cli.progress import Sight
from gateway.cli.text import is_terminal, print_line

Show = Callable[[Sight], None]


def follow(api: AdminClient, out: Output, deployment: dict[str, Any], timeout_ms: int) -> dict[str, Any]:
    """Watch a rollout until it ends, showing each change, and each pause with what it waits for. A gateway
    that restarts meanwhile is waited for; of several, the next is asked.

    Raises CliError: 3 after timeout_ms, 130 on Ctrl-C.
    """
    service = deployment["serviceName"]
    last = "nothing was heard of it"

    def ended() -> dict[str, Any] | None:
        nonlocal last
        sight = look(api, service, deployment["id"])
        show(sight)
        last = progress.line(sight.rollout)
        return None if sight.is_open else sight.rollout

    try:
        with display(out) as show:
            return waiting.wait_for(
                api, ended, timeout_ms, lambda: f"timed out: the rollout of {service} is still open, {last}"
            )
    except KeyboardInterrupt:
        raise CliError(
            f"the rollout goes on without you: `gateway get {service} -w` watches it, "
            f"`gateway rollback {service}` takes it back",
            INTERRUPTED,
        ) from None


def look(api: AdminClient, service: str, deployment_id: str) -> Sight:
    """Return the service and its rollout as they are now."""
    seen = overview.one(api, service)
    newest = seen.get("deployment") or seen.get("last")
    if newest is None or newest["id"] != deployment_id:
        newest = api.get(f"deployment/{deployment_id}")
    return Sight(seen, newest)


@contextmanager
def display(out: Output) -> Iterator[Show]:
    """Give what shows a sight: a block that is drawn again, or lines for changes where nobody looks."""
    if out.is_json:
        yield _Changes(lambda sight: print_line(json.dumps(progress.as_json(sight), ensure_ascii=False)))
    elif is_terminal():
        from gateway.cli.terminal import live_block

        with live_block() as draw:
            yield lambda sight: draw(progress.block(sight))
    else:
        yield _Lines(out.note)


class _Changes:
    """Calls `say` for a sight that differs from the one before."""

    def __init__(self, say: Show) -> None:
        self._say = say
        self._seen: object = None

    def __call__(self, sight: Sight) -> None:
        change = progress.change_of(sight)
        if change != self._seen:
            self._seen = change
            self._say(sight)


class _Lines:
    """A line for each change, what a pause waits for, and once when there is no traffic."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._changes = _Changes(self._change)
        self._is_quiet = False

    def __call__(self, sight: Sight) -> None:
        self._changes(sight)
        if sight.is_quiet and not self._is_quiet:
            self._note(progress.quiet_line(sight))
        self._is_quiet = sight.is_quiet

    def _change(self, sight: Sight) -> None:
        self._note(progress.line(sight.rollout))
        if waits := progress.waits_for(sight.rollout):
            self._note(waits)


# -- all services


def watch(api: AdminClient, out: Output, service: str | None, *, everything: bool) -> None:
    """Show the overview until Ctrl-C: as it is now, and then what changes."""
    try:
        if out.is_json:
            _watch_lines(api, out, service, everything=everything, as_json=True)
        elif is_terminal():
            _watch_block(api, service, everything=everything)
        else:
            _watch_lines(api, out, service, everything=everything, as_json=False)
    except KeyboardInterrupt:
        return


def _watch_block(api: AdminClient, service: str | None, *, everything: bool) -> None:
    from gateway.cli import terminal

    with terminal.live_block() as draw:
        while True:
            try:
                draw(terminal.overview_lines(overview.read(api, service), everything=everything))
            except Unreachable as exc:
                draw([str(exc)])
            time.sleep(1.0)


def _watch_lines(
    api: AdminClient, out: Output, service: str | None, *, everything: bool, as_json: bool
) -> None:
    before: dict[str, object] | None = None
    while True:
        try:
            seen = overview.read(api, service)
        except Unreachable as exc:
            if before is None:
                raise
            out.note(str(exc))
        else:
            before = _say_changes(seen, before, everything=everything, as_json=as_json)
        time.sleep(1.0)


def _say_changes(
    seen: dict[str, Any], before: dict[str, object] | None, *, everything: bool, as_json: bool
) -> dict[str, object]:
    """Print what differs from `before` (None: everything, with its columns). Returns the new state."""
    now = {key: state for key, state, _ in _lines_of(seen, everything=everything, as_json=as_json)}
    lines = [
        text
        for key, state, text in _lines_of(seen, everything=everything, as_json=as_json)
        if before is None or before.get(key) != state
    ]
    if before is None and not as_json:
        lines.insert(0, "  ".join(overview.COLUMNS))
    for text in lines:
        print_line(text)
    return now


def _lines_of(seen: dict[str, Any], *, everything: bool, as_json: bool) -> Iterator[tuple[str, object, str]]:
    """Yield (key, what is worth a line when it changes, the line) of each version and each open rollout."""
    for service in seen["items"]:
        rollout = service.get("deployment") or service.get("last")
        steady = rollout and progress.change_of(Sight(service, rollout))
        versions = overview.shown(service, everything=everything)
        if as_json:
            states = [_steady(service, each) for each in versions]
            yield service["name"], (states, steady), json.dumps(service, ensure_ascii=False)
            continue
        for each in versions:
            key = f"{service['name']} {each['version']}"
            yield key, _steady(service, each), "  ".join(overview.cells(service, each))
        if rollout is not None and service.get("deployment") is not None:
            text = f"{service['name']}  {overview.rollout_line(rollout)}"
            why = overview.why_line(rollout)
            yield service["name"], steady, f"{text}: {why}" if why else text


def _steady(service: dict[str, Any], version: dict[str, Any]) -> tuple[object, ...]:
    """Return what of a version is worth a line when it changes."""
    return (
        overview.share(version),
        overview.health(version),
        version["status"],
        version["url"],
        overview.rollout_word(service, version),
    )
