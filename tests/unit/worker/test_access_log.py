"""Access log lines: what they say, that they arrive whole, and what happens when nobody takes them."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.worker import access_log, log_target, log_writer
from gateway.worker.access_log import BATCH, AccessLog, Line, ascii_of, utc
from gateway.worker.log_target import whole_lines

NOW = 1_700_000_000.25


def add(log: AccessLog, **changed: Any) -> None:
    values: dict[str, Any] = {
        "time": utc(NOW),
        "client": "192.0.2.1",
        "peer": "127.0.0.1",
        "method": "GET",
        "target": "/a?b=c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 97,
        "duration_ms": 1.234,
        "host": "example.com",
        "user_agent": "curl/8",
        "service": "auth",
        "version": "v1",
        "endpoint": "10.0.0.1:80",
    }
    for name, value in changed.items():
        values[name] = ascii_of(value) if isinstance(value, bytes) else value
    log.add(Line(**values))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def written(format: Literal["json", "combined"], path: Path, **changed: Any) -> str:
    """Return the line that one request makes."""
    log = AccessLog(format, str(path))
    log.start()
    add(log, **changed)
    log.close()
    assert log.dropped == 0
    text = path.read_text()
    assert text.count("\n") == 1
    return text


async def test_json_line_names_what_happened(tmp_path: Path) -> None:
    assert json.loads(await written("json", tmp_path / "log")) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "client": "192.0.2.1",
        "peer": "127.0.0.1",
        "method": "GET",
        "target": "/a?b=c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 97,
        "durationMs": 1.234,
        "host": "example.com",
        "userAgent": "curl/8",
        "service": "auth",
        "version": "v1",
        "endpoint": "10.0.0.1:80",
    }


async def test_json_line_names_what_went_wrong(tmp_path: Path) -> None:
    line = json.loads(await written("json", tmp_path / "log", attempts=3, outcome="reset", status=502))
    assert (line["attempts"], line["outcome"], line["status"]) == (3, "reset", 502)


async def test_combined_line_is_apaches(tmp_path: Path) -> None:
    assert await written("combined", tmp_path / "log", referer=b"http://r/") == (
        '192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 97 "http://r/" "curl/8"\n'
    )


async def test_combined_line_marks_what_is_missing(tmp_path: Path) -> None:
    line = await written("combined", tmp_path / "log", client="", bytes=0, user_agent=b"")
    assert line == '- - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=c HTTP/1.1" 200 - "-" "-"\n'


@pytest.mark.parametrize("format", ["json", "combined"])
async def test_no_byte_of_a_client_ends_a_line_or_a_string(
    format: Literal["json", "combined"], tmp_path: Path
) -> None:
    every = bytes(range(256))
    text = await written(format, tmp_path / "log", target=b"/" + every, referer=every, user_agent=every)
    assert re.fullmatch(r"[\x20-\x7e]*\n", text)
    if format == "combined":
        assert re.fullmatch(r'\S+ - - \[[^]]+\]( "([^"\\]|\\.)*"| \d+){5}\n', text)
    else:
        assert json.loads(text)["userAgent"].endswith("\\xff")


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
    path = tmp_path / "log"
    log = AccessLog("json", str(path))
    log.start()
    for _ in range(BATCH):
        add(log)
    assert log._timer is None
    await until(lambda: path.read_text().count("\n") == BATCH)
    log.close()


async def test_file_that_was_moved_is_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_target, "ROTATION_S", 0.0)
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = AccessLog("json", str(path))
    log.start()
    add(log, target=b"/before")
    await until(lambda: path.stat().st_size > 0)
    path.rename(old)
    add(log, target=b"/after")
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
        total = BATCH * 20
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
    for _ in range(BATCH * 2):
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
    add(log, target=b"/again")
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
