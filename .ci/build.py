"""Compiles what of the gateway is compiled: the head codec and the access log's lines from C, the data plane
from its own Python.

pip calls `NativeBuild` for a wheel. Without a compiler the wheel is built all the same, in plain Python;
GATEWAY_REQUIRE_NATIVE=1 makes that an error, GATEWAY_NO_NATIVE=1 asks for it. An editable install compiles
what is in C alone, in place: compiled Python would be older than the next edit.

`python .ci/build.py codec [FLAGS]` does that, too; `… package FOLDER` makes FOLDER/gateway, compiled.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # called by hand
    BuildHookInterface = object

ROOT: Final = Path(__file__).parents[1]
SOURCES: Final = (Path("gateway/http1/codec/codec.c"), Path("gateway/worker/json_line/json_line.c"))
"""Each becomes the module `native` beside it."""
SUFFIX: Final = sysconfig.get_config_var("EXT_SUFFIX")
WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")
COMPILED: Final = (
    "core/judge/buckets.py",
    "core/resilience/breaker.py",
    "core/resilience/retry.py",
    "core/routing/balance.py",
    "core/routing/cohort.py",
    "core/routing/endpoint.py",
    "core/routing/shares.py",
    "core/routing/split.py",
    "core/routing/table.py",
    "core/routing/version.py",
    "http1/chunked.py",
    "http1/client.py",
    "http1/connections.py",
    "http1/half_closed.py",
    "http1/handler.py",
    "http1/heads.py",
    "http1/incoming_body.py",
    "http1/message.py",
    "http1/request.py",
    "http1/response.py",
    "http1/server.py",
    "http1/target.py",
    "http1/trailers.py",
    "link/channel.py",
    "link/counts.py",
    "net/networks.py",
    "net/progress.py",
    "worker/access_log.py",
    "worker/admission.py",
    "worker/client_connection.py",
    "worker/exchange/attempt.py",
    "worker/exchange/cdn_loop.py",
    "worker/exchange/choice.py",
    "worker/exchange/client_info.py",
    "worker/exchange/context.py",
    "worker/exchange/cookies.py",
    "worker/exchange/exchange.py",
    "worker/exchange/failures.py",
    "worker/exchange/max_forwards.py",
    "worker/exchange/record.py",
    "worker/exchange/request_head.py",
    "worker/exchange/response_head.py",
    "worker/exchange/trace_context.py",
    "worker/exchange/tunnel_hold.py",
    "worker/exchange/upload.py",
    "worker/live_table.py",
    "worker/log_file.py",
    "worker/log_line.py",
    "worker/plane.py",
    "worker/policies.py",
    "worker/policy.py",
    "worker/pool.py",
    "worker/reporter.py",
    "worker/span_buffer.py",
    "worker/uplink.py",
)
"""Modules on a request's way. They call each other directly: a class and its base are both here, or none."""
FAILURES: Final = (OSError, subprocess.CalledProcessError)


def build_native(root: Path, *flags: str) -> list[Path]:
    """Compile what is in C, in place below `root`. Returns the modules. Raises one of FAILURES."""
    return [build_source(root / source, *flags) for source in SOURCES]


def build_source(source: Path, *flags: str) -> Path:
    """Compile one file. Returns the module. Raises one of FAILURES."""
    target = source.with_name(f"native{SUFFIX}")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_paths()['include']}"
    define = f"-DSOURCE_SUM={zlib.crc32(source.read_bytes())}UL"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        made = Path(folder) / target.name  # moved into place whole: others may be loading it
        command = [*compiler, "-std=c11", "-O2", "-fPIC", "-shared", *flags, include, define, str(source)]
        subprocess.run([*command, "-o", str(made)], check=True)
        made.replace(target)
    return target


def build_package(folder: Path) -> None:
    """Copy the package to `folder` and compile it there. Raises one of FAILURES."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".build-*")
    shutil.copytree(ROOT / "gateway", folder / "gateway", ignore=ignored)
    build_native(folder)
    for source in SOURCES:
        (folder / source).unlink()
    subprocess.run([sys.executable, str(Path(__file__).resolve()), "python"], cwd=folder, check=True)
    shutil.rmtree(folder / "build", ignore_errors=True)


def build_python() -> None:
    """Compile the modules of COMPILED in place below this folder."""
    from mypyc.build import mypycify
    from setuptools import setup

    paths = [f"gateway/{name}" for name in COMPILED]
    options = ["--python-version", "3.11", "--ignore-missing-imports", "--follow-untyped-imports"]
    extensions = mypycify([*options, *paths], opt_level="3", debug_level="0", group_name="gateway")
    for extension in extensions:  # one module holds all: nobody outside may stand in for its functions
        extension.extra_compile_args.append("-fno-semantic-interposition")
    setup(name="gateway", ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])


class NativeBuild(BuildHookInterface):  # type: ignore[misc, valid-type]
    """Puts compiled modules into the wheel that hatch builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or os.environ.get("GATEWAY_NO_NATIVE") == "1":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-build-")
        try:
            if version == "editable":
                build_native(Path(self.root))
                return
            folder = Path(self._folder.name)
            build_package(folder)
        except FAILURES as exc:
            if os.environ.get("GATEWAY_REQUIRE_NATIVE") == "1":
                raise
            self.app.display_warning(f"not compiled, plain Python will run instead: {exc}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in folder.rglob(f"*{SUFFIX}"):
            build_data["force_include"][str(path)] = str(path.relative_to(folder))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["codec"]:
        print(*build_native(ROOT, *WARNINGS, *arguments[1:]), sep="\n")
    elif arguments == ["python"]:
        build_python()
    elif len(arguments) == 2 and arguments[0] == "package":
        build_package(Path(arguments[1]))
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
