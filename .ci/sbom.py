"""Writes config/sbom.json: what the image is made of besides Python, from the locked versions (CycloneDX).

`python .ci/sbom.py` writes it; a test sees to it that it fits config/requirements.lock.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "config" / "requirements.lock"
SBOM: Final = ROOT / "config" / "sbom.json"


def components(lock: str) -> list[dict[str, Any]]:
    """Return a component for each package of a lock file, with the hashes that pip accepts for it."""
    found = []
    for name, version, rest in re.findall(r"^([a-z0-9._-]+)==(\S+)((?:.*\\\n)*.*)", lock, re.MULTILINE):
        hashes = [{"alg": "SHA-256", "content": each} for each in re.findall(r"--hash=sha256:(\w+)", rest)]
        purl = f"pkg:pypi/{name}@{version}"
        found.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "purl": purl,
                "hashes": hashes,
            }
        )
    return found


def document(lock: str, version: str) -> str:
    """Return the whole bill of materials. It bears no date: the same lock makes the same file."""
    found = components(lock)
    me = f"pkg:pypi/gateway@{version}"
    component = {"type": "application", "bom-ref": me, "name": "gateway", "version": version}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**component, "licenses": [{"license": {"id": "MIT"}}]}},
        "components": found,
        "dependencies": [{"ref": me, "dependsOn": [each["bom-ref"] for each in found]}],
    }
    return json.dumps(bill, indent=1) + "\n"


def current() -> str:
    """Return the bill of what is in the tree."""
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return document(LOCK.read_text("utf-8"), version)


if __name__ == "__main__":
    SBOM.write_text(current(), "utf-8")
    sys.exit(0)
