"""Plain Python runs where it is asked for, whatever lies beside it; whoever asks learns which form runs."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.http1 import codec
from gateway.http1.form import FORMS, native_form
from gateway.plain import PlainFinder, is_compiled

ROOT = Path(__file__).parents[2]


def test_source_is_found_beside_a_compiled_module(tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("")
    (tmp_path / "thing.so").write_text("not a library")
    spec = PlainFinder().find_spec("gateway.thing", [str(tmp_path)])
    assert spec is not None
    assert spec.origin == str(tmp_path / "thing.py")


def test_package_is_found_by_its_source(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "__init__.py").write_text("")
    spec = PlainFinder().find_spec("gateway.part", [str(tmp_path)])
    assert spec is not None
    assert spec.submodule_search_locations == [str(tmp_path / "part")]


@pytest.mark.parametrize("name", ["gateway", "gatewayx.thing", "asyncio.events", "gateway.nothing"])
def test_other_modules_are_left_to_others(tmp_path: Path, name: str) -> None:
    assert PlainFinder().find_spec(name, [str(tmp_path)]) is None


def test_compiled_modules_are_known_by_their_file() -> None:
    module = ModuleType("thing")
    module.__file__ = "/x/thing.cpython-311-x86_64-linux-gnu.so"
    assert is_compiled(module)
    assert not is_compiled(sys.modules[__name__])


def form_of(**env: str) -> str:
    command = [sys.executable, "-c", "from gateway.http1.form import native_form; print(native_form())"]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, check=True)
    return run.stdout.decode().strip()


def test_plain_python_can_be_asked_for() -> None:
    assert form_of(GATEWAY_NO_NATIVE="1") == "none"


def test_form_is_said() -> None:
    assert native_form() in FORMS
    assert (native_form() == "none") != codec.IS_NATIVE


def test_codec_of_another_source_is_not_used(tmp_path: Path) -> None:
    """Guards edits against a module compiled before them."""
    here = ROOT / "gateway" / "http1" / "codec"
    if not codec.IS_NATIVE or not (here / "codec.c").exists():
        pytest.skip("nothing is compiled here")
    folder = tmp_path / "gateway" / "http1" / "codec"
    folder.mkdir(parents=True)
    for name in ("gateway/__init__.py", "gateway/http1/__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "gateway/plain.py").write_bytes((ROOT / "gateway/plain.py").read_bytes())
    for path in here.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    probe = [sys.executable, "-c", "from gateway.http1.codec import IS_NATIVE as it; print(it)"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = [subprocess.run(probe, cwd=tmp_path, env=env, capture_output=True).stdout.strip()]
    (folder / "codec.c").write_bytes((here / "codec.c").read_bytes() + b"\n")
    said.append(subprocess.run(probe, cwd=tmp_path, env=env, capture_output=True).stdout.strip())
    assert said == [b"True", b"False"]
