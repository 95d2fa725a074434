"""Keeps the package to plain Python where compiled modules lie beside it: GATEWAY_NO_NATIVE=1."""

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

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
