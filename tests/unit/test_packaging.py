"""What is shipped with the package says what is in it."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Final

import gateway

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK: Final = (ROOT / "config/requirements.lock").read_text("utf-8")


def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / ".ci/sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_of_materials_is_that_of_the_lock() -> None:
    assert (ROOT / "config/sbom.json").read_text("utf-8") == sbom().current(), "run python .ci/sbom.py"
    bill = json.loads(sbom().current())
    assert len(bill["components"]) == len(re.findall("^[a-z].*==", LOCK, re.MULTILINE)) > 8
    assert all(each["hashes"] for each in bill["components"])


def test_every_dependency_is_locked() -> None:
    names = {re.split("[><=]", each)[0] for each in PROJECT["dependencies"]}
    assert names <= set(re.findall("^([a-z0-9-]+)==", LOCK, re.MULTILINE))


def test_the_version_is_one_and_the_types_are_ours_to_check() -> None:
    assert PROJECT["version"] == gateway.__version__
    assert (ROOT / "gateway/py.typed").is_file()
    assert (ROOT / PROJECT["license-files"][0]).is_file()
