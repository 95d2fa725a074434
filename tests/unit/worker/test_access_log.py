"""Access log lines: what they say, that they arrive whole, and what happens when nobody takes them."""

import asyncio
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from gateway.core.settings.observing import LogFilter
from gateway.worker import access_log, log_target, log_writer
from gateway.worker.access_log import AccessLog, Wanted, redacted
from gateway.worker.log_line import Line
from gateway.worker.log_target import whole_lines

NOW = 1_700_000_000.25
MANY = 200
"""Lines."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "time", lambda: NOW)
    monkeypatch.setattr(access_log, "monotonic", lambda: 0.0)


def add(log: AccessLog, **changed: Any) -> None:
    values: dict[str, Any] = {
        "ended": 0.0,
        "request_id": b"r1",
        "trace_id": b"t1",
        "client": "192.0.2.1",
        "peer": "127.0.0.1",
        "method": b"GET",
        "path": b"/a?b=c",
        "proto": "HTTP/1.1",
        "status": 200,
        "bytes_out": 97,
        "duration_us": 1234,
        "upstream_us": 1000,
        "gateway_us": 234,
        "bytes_in": 3,
        "attempts": 1,
        "host": "example.com",
        "user_agent": b"curl/8",
        "service": "auth",
        "version": "v1",
        "endpoint": "10.0.0.1:80",
    }
    log.line = Line()
    for name, value in (values | changed).items():
        setattr(log.line, name, value)
    log.add()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def written(format: Literal["json", "combined"], file: Path, **changed: Any) -> str:
    """Return the line that one request makes."""
    log = AccessLog(format, str(file))
    log.start()
    add(log, **changed)
    log.close()
    assert log.dropped == 0
    text = file.read_text()
    assert text.count("\n") == 1
    return text


FIELDS: Final = (
    *("ts", "request_id", "trace_id", "client", "peer", "method", "host", "path", "proto", "status"),
    *("service", "version", "deployment", "endpoint", "attempts", "duration_ms", "upstream_ms"),
    *("gateway_ms", "bytes_in", "bytes_out", "user_agent", "flags"),
)


async def test_json_line_names_what_happened(tmp_path: Path) -> None:
    line = json.loads(await written("json", tmp_path / "log"))
    assert line == {
        "ts": "2023-11-14T22:13:20.250000Z",
        "request_id": "r1",
        "trace_id": "t1",
        "client": "192.0.2.1",
        "peer": "127.0.0.1",
        "method": "GET",
        "host": "example.com",
        "path": "/a?b=c",
        "proto": "HTTP/1.1",
        "status": 200,
        "service": "auth",
        "version": "v1",
        "endpoint": "10.0.0.1:80",
        "attempts": 1,
        "duration_ms": 1.234,
        "upstream_ms": 1.0,
        "gateway_ms": 0.234,
        "bytes_in": 3,
        "bytes_out": 97,
        "user_agent": "curl/8",
    }


async def test_json_line_names_what_went_wrong_in_which_deployment(tmp_path: Path) -> None:
    changed = {"attempts": 3, "flags": ["reset", "retried"], "status": 502, "deployment": "d1"}
    line = json.loads(await written("json", tmp_path / "log", **changed))
    assert {name: line[name] for name in changed} == changed
    assert set(line) == set(FIELDS)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("keep", b"/a?token=s3cret&x"),
        ("redact", b"/a?token=***&***"),
        ("drop", b"/a"),
    ],
)
def test_query_is_written_as_far_as_the_settings_say(query: Any, path: bytes, tmp_path: Path) -> None:
    log = AccessLog("json", str(tmp_path / "log"), query=query)
    assert log.shown(b"/a?token=s3cret&x") == path
    assert log.shown(b"/a") == b"/a"
    log.close()


def test_redacted_query_holds_no_value_however_it_is_written() -> None:
    for target in (
        b"/?s3cret",
        b"/?a=s3cret=s3cret",
        b"/?a=1?b=s3cret",
        b"/?&&s3cret&a=s3cret",
        b"/?=s3cret",
    ):
        assert b"s3cret" not in redacted(target)


@pytest.mark.parametrize(
    ("only", "written_ones"),
    [
        (LogFilter(), []),
        (LogFilter(status="500-599"), [502, 599]),
        (LogFilter(status="404"), [404]),
        (LogFilter(min_duration=1_000), [200]),
        (LogFilter(min_duration=0), [200, 404, 502, 599]),
        (LogFilter(retried=True), [599]),
        (LogFilter(status="404", min_duration=1_000, retried=True), [200, 404, 599]),
    ],
)
def test_any_condition_of_the_filter_is_enough(only: LogFilter, written_ones: list[int]) -> None:
    wanted = Wanted(only)
    requests = [(200, 1_000_000, 1), (404, 999_999, 1), (502, 10, 0), (599, 10, 2)]
    assert [each[0] for each in requests if wanted.wants(*each)] == written_ones


async def test_combined_line_is_apaches(tmp_path: Path) -> None:
    assert await written("combined", tmp_path / "log", referer=b"http://r/") == (
        '192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 97 "http://r/" "curl/8"\n'
    )


async def test_combined_line_marks_what_is_missing(tmp_path: Path) -> None:
    line = await written("combined", tmp_path / "log", client="", bytes_out=0, user_agent=b"")
    assert line == '- - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 - "-" "-"\n'


@pytest.mark.parametrize("format", ["json", "combined"])
async def test_no_byte_of_a_client_ends_a_line_or_a_string(
    format: Literal["json", "combined"], tmp_path: Path
) -> None:
    every = bytes(range(256))
    text = await written(format, tmp_path / "log", path=b"/" + every, referer=every, user_agent=every)
    assert re.fullmatch(r"[\x20-\x7e]*\n", text)
    if format == "combined":
        assert re.fullmatch(r'\S+ - - \[[^]]+\]( "([^"\\]|\\.)*"| \d+){5}\n', text)
    else:
        assert json.loads(text)["user_agent"].endswith("\\xff")


@pytest.mark.parametrize("format", ["json", "combined"])
async def test_lines_are_written_without_being_asked(
    format: Literal["json", "combined"], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    log = AccessLog(format, str(path))
    log.start()
    for _ in range(2):
        size = path.stat().st_size
        add(log)
        await until(lambda: path.stat().st_size > size)  # noqa: B023
    log.close()


async def test_long_list_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(access_log, "FLUSH_S", 3600.0)
    path = tmp_path / "log"
    log = AccessLog("json", str(path))
    log.start()
    for _ in range(MANY):
        add(log)
    await until(lambda: path.stat().st_size > 0)
    log.close()
    assert path.read_text().count("\n") == MANY


async def test_file_that_was_moved_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_target, "ROTATION_S", 0.0)
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = AccessLog("json", str(path))
    log.start()
    add(log, path=b"/before")
    await until(lambda: path.stat().st_size > 0)
    path.rename(old)
    add(log, path=b"/after")
    log.close()
    assert "/before" in old.read_text()
    assert "/after" in path.read_text()
    assert log.dropped == 0


async def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("first\n")
    log = AccessLog("json", str(path))
    log.start()
    add(log)
    log.close()
    assert path.read_text().startswith("first\n{")


async def test_standard_output_is_a_target(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("json", "-")
    log.start()
    add(log)
    log.close()
    assert json.loads(capfd.readouterr().out)["status"] == 200


async def test_stalled_target_dropswhole_lines_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "BACKLOG_BYTES", 200_000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = AccessLog("json", str(path))
        log.start()
        total = MANY * 20
        for _ in range(total):
            add(log)
        assert 0 < log.dropped < total
        received = b""

        def drained() -> bool:
            nonlocal received
            try:
                received += os.read(reader, 1_000_000)
            except BlockingIOError:
                pass
            return received.count(b"\n") == total - log.dropped

        await until(drained)
        log.close()
    finally:
        os.close(reader)
    lines = received.splitlines()
    assert all(json.loads(line)["status"] == 200 for line in lines)


async def test_end_does_not_wait_for_a_target_that_stalls(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog("json", str(path))
    log.start()
    for _ in range(MANY * 2):
        add(log)  # more than a pipe holds
    log.close(wait_s=0)
    assert log._writer.is_alive()
    os.close(reader)  # the pipe breaks, which ends the wait
    await until(lambda: not log._writer.is_alive())
    assert log.dropped > 0


async def test_target_that_fails_is_counted_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog("json", str(path))
    log.start()
    os.close(reader)
    add(log)
    log.flush()
    await until(lambda: log.dropped == 1)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    add(log, path=b"/again")
    log.close()
    assert b"/again" in os.read(reader, 65_536)
    os.close(reader)
    assert log.dropped == 1


def test_target_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none" / "log", tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=r"\[Errno"):
            AccessLog("json", str(path))


def test_log_that_never_started_closes_its_file(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    AccessLog("json", str(tmp_path / "log")).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_parts_for_a_pipe_arewhole_lines() -> None:
    lines = [b"x" * length + b"\n" for length in (10, 4000, 200, 4095, 4096, 9000, 1)]
    parts = list(whole_lines(b"".join(lines)))
    assert b"".join(parts) == b"".join(lines)
    assert all(part.endswith(b"\n") for part in parts)
    assert all(len(part) <= 4096 or part.count(b"\n") == 1 for part in parts)
    assert list(whole_lines(b"no end")) == [b"no end"]


async def test_disk_that_fills_up_amid_a_line_tears_none_but_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a half line that the next one goes on from."""
    path, real, full, free = tmp_path / "log", os.write, False, [50]

    def write(fd: int, data: Any) -> int:
        if not full:
            return real(fd, data)
        if written := free.pop() if free else 0:
            return real(fd, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    log = AccessLog("json", str(path))
    log.start()
    add(log, path=b"/before")
    log.flush()
    await until(lambda: path.stat().st_size > 0)
    monkeypatch.setattr(log_target.os, "write", write)
    full = True
    for _ in range(3):
        add(log, path=b"/lost")
    log.flush()
    await until(lambda: log.dropped == 3)
    full = False
    add(log, path=b"/after")
    log.close()
    before, torn, after = path.read_text().splitlines()
    assert json.loads(before)["path"] == "/before"
    assert len(torn) == 50
    assert json.loads(after)["path"] == "/after"


async def test_folder_that_was_removed_costs_lines_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_target, "ROTATION_S", 0.0)
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    log = AccessLog("json", str(path))
    log.start()
    add(log)
    log.flush()
    await until(lambda: path.stat().st_size > 0)
    shutil.rmtree(folder)
    add(log)
    log.flush()
    await until(lambda: log.dropped == 1)
    folder.mkdir()
    add(log, path=b"/again")
    log.close()
    assert json.loads(path.read_text())["path"] == "/again"
    assert log.dropped == 1


async def test_no_line_is_torn_or_lost_by_rotations_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers write to one file, which is moved away again and again."""
    monkeypatch.setattr(access_log, "PIECE_BYTES", 1_000)
    path, total, rotations = tmp_path / "log", MANY * 40, 0
    logs = [AccessLog("json", str(path)) for _ in range(2)]
    for log in logs:
        log.start()
    for number in range(total):
        for log in logs:
            add(log, path=b"/%d" % number)
        if number % (MANY * 4) == 0:
            await until(path.exists)
            path.rename(tmp_path / f"log.{rotations}")
            rotations += 1
            for log in logs:
                log.reopen()
    for log in logs:
        log.close(20)
    lines = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    assert rotations == 10
    assert sorted(int(json.loads(line)["path"][1:]) for line in lines) == sorted([*range(total)] * 2)
    assert [log.dropped for log in logs] == [0, 0]
