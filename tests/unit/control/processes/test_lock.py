"""One control process a store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.control.processes.lock import LOCK_NAME, StoreLock
from gateway.errors import StoreError

HOLD = """
import pathlib, sys
from gateway.control.processes.lock import StoreLock
StoreLock.acquire(pathlib.Path(sys.argv[1]))
"""


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    lock = StoreLock.acquire(tmp_path)
    with pytest.raises(StoreError, match=f"held by process {os.getpid()}"):
        StoreLock.acquire(tmp_path)
    lock.release()
    StoreLock.acquire(tmp_path).release()


def test_a_holder_that_ended_properly_left_no_workers(tmp_path: Path) -> None:
    StoreLock.acquire(tmp_path).release()
    lock = StoreLock.acquire(tmp_path)
    assert not lock.was_abandoned
    lock.release()


def test_a_holder_that_died_may_have_left_workers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], check=True)
    lock = StoreLock.acquire(tmp_path)
    assert lock.was_abandoned
    lock.release()


def test_a_lock_that_is_passed_on_is_never_free(tmp_path: Path) -> None:
    old = StoreLock.acquire(tmp_path)
    new = StoreLock.inherit(os.dup(old.fileno()))
    old.drop()
    with pytest.raises(StoreError):
        StoreLock.acquire(tmp_path)
    new.release()
    StoreLock.acquire(tmp_path).release()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=LOCK_NAME):
        StoreLock.acquire(tmp_path / "nowhere")
