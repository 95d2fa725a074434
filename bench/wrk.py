"""Runs `wrk` and reads its summary."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.procs import find_program

SUMMARY_LUA: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nSUMMARY {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d,"bytes":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout, summary.bytes))
end
"""
REQUESTS_LUA: Final = """
local requests, count = {}, 0
init = function(args)
  for one in io.open("REQUESTS", "rb"):read("*a"):gmatch("(%Z+)%z") do requests[#requests + 1] = one end
  math.randomseed(#requests)
end
request = function()
  count = count % #requests + 1
  return requests[count]
end
"""
"""Sends the requests of a file, one after the other. Made before: wrk must not be what is slow."""
DELAY_LUA: Final = """
delay = function() return math.random(LEAST, MOST) end
"""
"""Milliseconds between an answer and its connection's next request: spread, or all would come at once."""


class WrkSummary(msgspec.Struct, frozen=True):
    """What one run saw. errors: connections that broke and answers other than 2xx and 3xx."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    errors: int
    bytes: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.duration_us * 1e6


def write_requests(requests: Sequence[bytes], path: Path) -> Path:
    """Write what wrk shall send, set apart by NULs. Raises ValueError for a request that holds one."""
    if any(b"\0" in each for each in requests):
        raise ValueError("a request for wrk may not hold a NUL")
    path.write_bytes(b"".join(each + b"\0" for each in requests))
    return path


def run_wrk(
    port: int,
    *,
    seconds: int,
    connections: int,
    folder: Path,
    path: str = "/",
    requests: Path | None = None,
    rate: int = 0,
) -> WrkSummary:
    """Load a server with one wrk thread.

    seconds: wrk takes whole ones only. path: asked for again and again, without `requests`, a file of
    `write_requests`. rate: requests per second, about; 0: each connection sends as soon as it is answered.
    """
    program = find_program("wrk")
    if program is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    script = folder / "summary.lua"
    lua = SUMMARY_LUA
    if requests is not None:
        lua += REQUESTS_LUA.replace("REQUESTS", str(requests))
    if rate:
        pause_ms = max(2, round(connections / rate * 1000))
        lua += DELAY_LUA.replace("LEAST", str(pause_ms // 2)).replace("MOST", str(pause_ms + pause_ms // 2))
    script.write_text(lua)
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    command.append(f"http://127.0.0.1:{port}{path}")
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in run.stdout.splitlines() if line.startswith("SUMMARY "))
    return msgspec.convert(json.loads(line.removeprefix("SUMMARY ")), WrkSummary)
