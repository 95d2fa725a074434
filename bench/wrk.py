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


VARY_LUA: Final = """
local count, heads = 0, {}
local function vary(k)
  local own = {}
  for name, value in pairs(wrk.headers) do own[name] = value end
  own["User-Agent"] = (own["User-Agent"] or "bench") .. "/" .. k
  own["Cookie"] = (own["Cookie"] or "") .. string.format("id=%08x", k * 104729)
  local target = string.format("/api/v1/orders/%d?page=%d&sort=price", k * 7919, k)
  return wrk.format("GET", target, own)
end
init = function(args)
  for k = 1, 997 do heads[k] = vary(k) end
end
request = function()
  count = count % 997 + 1
  return heads[count]
end
"""
"""Every request has another path, query, User-Agent and Cookie. Made before: wrk must not be what is slow."""


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


def run_wrk(
    port: int,
    *,
    seconds: int,
    connections: int,
    folder: Path,
    fields: Sequence[tuple[str, str]] = (),
    path: str = "/",
    vary: bool = False,
) -> WrkSummary:
    """Load a server with one wrk thread, closed loop.

    seconds: wrk takes whole ones only. vary: no two requests in a row are alike.
    """
    program = find_program("wrk")
    if program is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    script = folder / "summary.lua"
    script.write_text(SUMMARY_LUA + (VARY_LUA if vary else ""))
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    for name, value in fields:
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{port}{path}")
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in run.stdout.splitlines() if line.startswith("SUMMARY "))
    return msgspec.convert(json.loads(line.removeprefix("SUMMARY ")), WrkSummary)
