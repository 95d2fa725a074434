"""Commands about the store: a copy of it."""

import os
from pathlib import Path
from typing import Final

import click

from gateway.cli.client import AdminClient
from gateway.cli.connect import client_command
from gateway.cli.exits import FAILED, OK, CliError
from gateway.cli.output import Output

MAGIC: Final = b"SQLite format 3\0"


@click.command()
@client_command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(api: AdminClient, out: Output, file: Path) -> int:
    """Copy the running gateway's store to FILE: whole, as it is at one moment, readable by its owner only."""
    draft = file.with_name(file.name + ".part")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as target:
            size = sum(map(target.write, api.pieces("backup")))
            target.flush()
            os.fsync(target.fileno())
        if draft.read_bytes()[: len(MAGIC)] != MAGIC:
            raise CliError("what came is not a store", FAILED)
        draft.replace(file)
    except OSError as exc:
        raise CliError(f"{file}: {exc.strerror or exc}", FAILED) from exc
    finally:
        draft.unlink(missing_ok=True)
    out.value({"file": str(file), "bytes": size}, f"{file}: {size} bytes")
    return OK


COMMANDS: Final = (backup,)
