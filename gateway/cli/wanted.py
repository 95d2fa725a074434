"""A file that says what there should be: services, versions, policies, tokens' names.

TOML or JSON, with the keys of the gateway's own configuration (`[[service]]`, `[[service.version]]`) and
`[[token]]`. A wrong key is refused by its path.
"""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gateway import config
from gateway.cli.exits import USAGE, CliError
from gateway.config import FileService
from gateway.core.settings.faults import first_fault
from gateway.errors import ConfigError

NOWHERE: Final = {"listen": {"address": "127.0.0.1:0"}, "admin": {"address": "127.0.0.1:0"}}
"""Where the gateway itself listens is for it to say; it refuses urls that lead there."""


class WantedToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token there should be, by name. Its secret is made by the gateway and shown once."""

    name: str
    role: Literal["viewer", "operator", "deployer", "admin"]


class Wanted(msgspec.Struct, frozen=True):
    """What a file says."""

    services: tuple[FileService, ...] = ()
    tokens: tuple[WantedToken, ...] = ()


def read(path: str) -> Wanted:
    """Return what the file says; `-`: standard input. Raises CliError (2) naming the file or the key."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CliError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}", USAGE) from exc
    try:
        return checked(parse(text, is_json=path.endswith(".json") or text.lstrip().startswith("{")))
    except ConfigError as exc:
        raise CliError(f"{path}: {exc}", USAGE) from exc


def parse(text: str, *, is_json: bool) -> Any:
    """Return the file's tables. Raises ConfigError if it is neither TOML nor JSON."""
    try:
        return json.loads(text) if is_json else tomllib.loads(text)
    except ValueError as exc:
        raise ConfigError("", f"is not {'JSON' if is_json else 'TOML'}: {exc}") from exc


def checked(tree: Any) -> Wanted:
    """Return the tables as checked structs. Raises ConfigError with the first bad key's path."""
    if not isinstance(tree, Mapping):
        raise ConfigError("", "is not a table of `service` and `token`")
    for key in tree:
        if key not in ("service", "token"):
            raise ConfigError(key, "unknown key")
    services = config.check({"service": tree.get("service", []), **NOWHERE}).service
    return Wanted(services, tuple(_token(index, each) for index, each in enumerate(_list(tree, "token"))))


def _list(tree: Mapping[str, Any], key: str) -> list[Any]:
    found = tree.get(key, [])
    if not isinstance(found, list):
        raise ConfigError(key, "is not a list of tables")
    return found


def _token(index: int, value: object) -> WantedToken:
    try:
        return msgspec.convert(value, WantedToken)
    except msgspec.ValidationError as exc:
        fault = first_fault(value, WantedToken, exc)
        raise ConfigError(".".join([f"token[{index}]", *fault.steps]), fault.reason) from exc
