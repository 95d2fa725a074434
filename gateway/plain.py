"""Keeps the package to plain Python where compiled modules lie beside it: GATEWAY_NO_NATIVE=1."""

import os
import zlib
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILED_SUFFIXES = (".so", ".pyd")


class PlainFinder(MetaPathFinder):
    """Finds this package's modules by their source alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of ours comes from; None: it is somebody else's, or another finder's."""
        if not fullname.startswith("gateway.") or path is None:
            return None
        for folder in path:
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
        return None


def is_compiled(module: ModuleType) -> bool:
    """Tell whether a module was compiled before it was loaded."""
    return (module.__file__ or "").endswith(COMPILED_SUFFIXES)


def native_beside(package: str, source: Path) -> Any:
    """Return the package's module `native`, made from `source`; None: it is not to be used, or not there.

    One made from another source than lies beside it is none. Where none lies there, it has been left out.
    """
    if os.environ.get("GATEWAY_NO_NATIVE") == "1":
        return None
    try:
        native = import_module(f"{package}.native")
    except ImportError:
        return None
    is_other = source.exists() and zlib.crc32(source.read_bytes()) != native.SOURCE
    return None if is_other else native
