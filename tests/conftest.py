"""Coroutine tests run in a fresh loop each; certificates are made when a test asks for them.

What is in C is compiled before, where there is a compiler and its source has changed: tests run what is in
the tree. GATEWAY_REQUIRE_NATIVE=1 makes it an error if it cannot be, GATEWAY_NO_NATIVE=1 leaves it out.

Properties are tried by the profile that HYPOTHESIS_PROFILE names (tests/effort.py): 50 examples in `quick`,
the default, 200 in `ci`, 5,000 in `deep`. `quick` and `ci` make the same examples each time, from seed 0, so
that a change is refused only by what its author can see too; `deep` makes others each time. A run that fails
prints its seed; `--hypothesis-seed N` makes those of N.

Compiled Python is kept even where PYTHONDONTWRITEBYTECODE asks for the contrary: tests start hundreds of
interpreters, and each would compile the gateway anew.
"""

import asyncio
import datetime
import inspect
import ipaddress
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
"""Tests share helpers as `tests.…`."""
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from tests import postgres  # noqa: E402
from tests.dealing import in_order  # noqa: E402
from tests.effort import PROFILE, effort  # noqa: E402

# A busy machine is not a failure: no deadline per example, no check of how fast examples are made.
settings.register_profile(
    PROFILE,
    max_examples=effort(50, 200, 5_000),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(PROFILE)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of every property here, once for all xdist workers, so that it can be printed."""
    if not hasattr(config, "workerinput"):
        build_native()
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.getrandbits(32)) if PROFILE == "deep" else "0"


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what all processes of this run have shared."""
    if not hasattr(config, "workerinput"):
        postgres.remove_shared()


def build_native() -> None:
    """Compile what is in C if what is there was made from another source, or nothing is there."""
    if os.environ.get("GATEWAY_NO_NATIVE") == "1":
        return
    probe = (
        "from gateway.http1 import codec; from gateway.worker import json_line;"
        "raise SystemExit(not (codec.IS_NATIVE and json_line.IS_NATIVE))"
    )
    if subprocess.run([sys.executable, "-c", probe], cwd=ROOT).returncode == 0:
        return
    made = subprocess.run([sys.executable, ".ci/build.py", "codec"], cwd=ROOT, stdout=subprocess.DEVNULL)
    if made.returncode and os.environ.get("GATEWAY_REQUIRE_NATIVE") == "1":
        raise pytest.UsageError("what is in C cannot be compiled")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Share out among xdist's workers what takes long."""
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    if workers > 1:
        items[:] = in_order(items, workers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Say how a failed run makes the same examples again."""
    if exitstatus:
        seed = terminalreporter.config.option.hypothesis_seed
        terminalreporter.write_line(f"HYPOTHESIS_PROFILE={PROFILE} pytest --hypothesis-seed={seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end; leave any other test to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


class Authority:
    """A certificate authority of this test alone."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(_pem(self._certificate("test authority", self._key, names=(), is_ca=True)))

    def issue(self, *names: str, client: bool = False, days: int = 1) -> tuple[str, str]:
        """Write a certificate for DNS names and IP addresses, and its key; return both paths."""
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        self._issued += 1
        stem = self._folder / f"certificate-{self._issued}"
        certificate, key_file = stem.with_suffix(".pem"), stem.with_suffix(".key")
        made = self._certificate(names[0], key, names, is_ca=False, client=client, days=days)
        certificate.write_bytes(_pem(made))
        key_file.write_bytes(_key_pem(key))
        return str(certificate), str(key_file)

    def _certificate(
        self,
        subject: str,
        key: Any,
        names: tuple[str, ...],
        *,
        is_ca: bool,
        client: bool = False,
        days: int = 1,
    ) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
            alternatives = x509.SubjectAlternativeName([_general_name(text) for text in names])
            builder = builder.add_extension(alternatives, critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _general_name(text: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    data: bytes = certificate.public_bytes(Encoding.PEM)
    return data


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose certificates live as long as the test."""
    return Authority(tmp_path)
