"""Compiles what of the gateway is compiled: the head codec from C, the data plane from its own Python.

pip calls `NativeBuild` for a wheel. Without a compiler the wheel is built all the same, in plain Python;
GATEWAY_REQUIRE_NATIVE=1 makes that an error, GATEWAY_NO_NATIVE=1 asks for it. An editable install compiles
the codec alone, in place.

`python .ci/build.py codec` does that, too; `… package FOLDER` makes FOLDER/gateway, compiled.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Final

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # called by hand
    BuildHookInterface = object

ROOT: Final = Path(__file__).parents[1]
CODEC: Final = Path("gateway/http1/codec/codec.c")
SUFFIX: Final = sysconfig.get_config_var("EXT_SUFFIX")
WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")


def build_codec(root: Path, *flags: str, name: str = f"native{SUFFIX}") -> Path:
    """Compile the codec in place below `root`. Returns the module. Raises CalledProcessError, OSError."""
    source = root / CODEC
    target = source.with_name(name)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_paths()['include']}"
    define = f"-DCODEC_SOURCE={zlib.crc32(source.read_bytes())}UL"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        made = Path(folder) / target.name  # moved into place whole: others may be loading it
        command = [*compiler, "-std=c11", "-O2", "-fPIC", "-shared", *flags, include, define, str(source)]
        subprocess.run([*command, "-o", str(made)], check=True)
        made.replace(target)
    return target


def main(arguments: list[str]) -> int:
    if arguments == ["codec"]:
        print(build_codec(ROOT, *WARNINGS))
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
