"""Commands about the store: a copy of it, and back."""

import os
from pathlib import Path
from typing import Final

import click
import msgspec

from gateway import config
from gateway.cli.client import AdminClient
from gateway.cli.connect import FORMATS, client_command
from gateway.cli.exits import FAILED, OK, USAGE, CliError
from gateway.cli.output import Output
from gateway.core.settings.store_url import is_postgres
from gateway.errors import ConfigError, GatewayError

MAGIC: Final = b"SQLite format 3\0"


@click.command()
@client_command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(api: AdminClient, out: Output, file: Path) -> int:
    """Copy the running gateway's store to FILE: whole, as it is at one moment, readable by its owner only."""
    file = file.resolve()  # what a link leads to is written, and the link stays
    if file.exists() and not file.is_file():
        raise CliError(f"{file} is no file: name one, such as gateway.backup.db", USAGE)
    draft = file.with_name(file.name + ".part")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as target:
            size = sum(map(target.write, api.pieces("backup")))
            target.flush()
            os.fsync(target.fileno())
        if draft.read_bytes()[: len(MAGIC)] != MAGIC:
            raise CliError("what came is not a store; is --admin-url that of a gateway?", FAILED)
        draft.replace(file)
    except OSError as exc:
        raise CliError(f"{file}: {exc.strerror or exc}", FAILED) from exc
    finally:
        draft.unlink(missing_ok=True)
    out.value({"file": str(file), "bytes": size}, f"{file}: {size} bytes")
    return OK


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Only look it through; nothing is changed.")
@click.option(
    "--config", "config_path", type=click.Path(dir_okay=False), help="Where the store is looked up."
)
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", envvar="GATEWAY_OUTPUT")
def restore(file: Path, only_check: bool, config_path: str | None, output: str) -> int:
    """Put the backup FILE in the store's place, while no gateway runs; the old store is kept beside it.

    --check: open a copy as a start would, and look it through: exit code 1 if it should not be used.
    """
    from gateway.serve import restoring

    out = Output(output)
    try:
        found = restoring.examine(file)
        shown = msgspec.to_builtins(found)
        if found.problem:
            out.value(shown, f"{file}: {found.problem}")
            return FAILED
        summary = (
            f"{file}: {found.services} services, {found.versions} versions, open rollouts: "
            f"{found.open_deployments}, {found.tokens} tokens, {found.audit_rows} audit rows, sound"
        )
        if only_check:
            out.value(shown, summary)
            return OK
        settings = config.load(config_path).store
        if is_postgres(settings.url):
            raise CliError(f"the store is in PostgreSQL: gateway store copy sqlite:///{file} URL", USAGE)
        path = settings.path
        old = restoring.restore(file, path)
    except ConfigError as exc:
        raise CliError(str(exc), USAGE) from exc
    except GatewayError as exc:
        raise CliError(str(exc)) from exc
    kept = f"; the old one is {old}" if old else ""
    out.value(
        shown | {"store": str(path), "old": str(old or "")},
        f"{summary}\nput in the place of {path}{kept}\ntokens are those of the backup; "
        "next: gateway serve, and gateway audit acknowledge, for rows that came after it are gone",
    )
    return OK


@click.group()
def store() -> None:
    """The store itself: move it from one database to another."""


@store.command("copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Holds PostgreSQL's password; else PGPASSWORD or ~/.pgpass.",
)
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", envvar="GATEWAY_OUTPUT")
def store_copy(source: str, target: str, password_file: str | None, output: str) -> int:
    """Copy the store at the url FROM, as it is at one moment, into the empty one at TO.

    A url is sqlite:///FILE or postgresql://USER@HOST/DATABASE. A gateway may run on FROM: what it stores
    later stays there. Its audit trail is verified in its new place.
    """
    from gateway.serve import moving

    try:
        copied = moving.copy_store(source, target, password_file)
    except GatewayError as exc:
        raise CliError(str(exc)) from exc
    Output(output).value(
        msgspec.to_builtins(copied),
        f"copied {copied.rows} rows: {copied.services} services, {copied.versions} versions, {copied.tokens} "
        f"tokens, {copied.audit_rows} audit rows, sound",
    )
    return OK


COMMANDS: Final = (backup, restore, store)
