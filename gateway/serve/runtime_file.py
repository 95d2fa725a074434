"""gateway.json beside the store: the pid and the addresses a running gateway is bound to, for scripts."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

RUNTIME_NAME: Final = "gateway.json"


def write_runtime(folder: Path, *, listen: Sequence[str], admin: str) -> None:
    """Say where this gateway is, also to people who configured port 0. Addresses: `host:port` as bound."""
    draft = folder / f"{RUNTIME_NAME}.new"
    draft.write_text(json.dumps({"pid": os.getpid(), "listen": list(listen), "admin": admin}) + "\n", "utf-8")
    draft.replace(folder / RUNTIME_NAME)


def remove_runtime(folder: Path) -> None:
    """No gateway runs on this store."""
    (folder / RUNTIME_NAME).unlink(missing_ok=True)
