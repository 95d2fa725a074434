"""A writer that is killed leaves the old state, and nothing it reported is lost."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.unit.store.rows import opened, url

_WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from gateway.store.sqlite import SqliteStore

async def main(url, ends):
    store = await SqliteStore.open(url, now=datetime(2026, 1, 1, tzinfo=UTC))
    for n in range(1, 1_000_000):
        async with store.transaction() as tx:
            tx.set_meta("left", b"%d" % n)
            await tx.flush()
            tx.set_meta("right", b"%d" % n)
            if ends == "inside" and n == 3:
                await tx.flush()
                print("inside", flush=True)
                await asyncio.Event().wait()
        print(n, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def _writer(path: Path, ends: str) -> asyncio.subprocess.Process:
    root = Path(__file__).parents[3]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, url(path), ends, stdout=asyncio.subprocess.PIPE, cwd=root
    )


async def _kill_after(process: asyncio.subprocess.Process, line: bytes) -> int:
    """Kill the writer once it has printed `line`. Returns the last number it had reported as committed."""
    assert process.stdout is not None
    committed = 0
    while (said := (await process.stdout.readline()).strip()) != line:
        committed = int(said)
    os.kill(process.pid, signal.SIGKILL)
    rest = (await process.stdout.read()).split()
    await process.wait()
    return max(
        [committed, *(int(word) for word in rest if word.isdigit()), int(line) if line.isdigit() else 0]
    )


async def test_a_writer_killed_inside_a_transaction_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    assert await _kill_after(await _writer(path, "inside"), b"inside") == 2
    store = await opened(path)
    assert (await store.meta("left"), await store.meta("right")) == (b"2", b"2")
    async with store.transaction() as tx:
        tx.set_meta("left", b"mine")
    assert await store.meta("left") == b"mine"
    await store.close()


async def test_a_writer_killed_anywhere_loses_nothing_it_reported(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    committed = await _kill_after(await _writer(path, "never"), b"25")
    store = await opened(path)
    left, right = await store.meta("left"), await store.meta("right")
    assert left == right
    assert int(left or b"0") in (committed, committed + 1)
    await store.close()
