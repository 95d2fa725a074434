"""Which addresses are this machine's, and which sockets lead nowhere good: asked of the machine itself."""

import os
import socket
from pathlib import Path

import pytest

from gateway.core.settings.targets import Listener, TargetRules
from gateway.errors import ConfigError
from gateway.net.machine import Sockets, is_local_address


def own_address() -> str:
    """Return an address of this machine that is not a loopback one, if it has one; else a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_own_addresses_are_known_and_others_are_not() -> None:
    assert is_local_address("127.0.0.1")
    assert is_local_address(own_address())
    assert not is_local_address("192.0.2.1")
    assert not is_local_address("2001:db8::1")


def test_no_target_is_the_gateways_port_on_any_of_its_addresses() -> None:
    """Guards against one request that became 2,500: a listener on 0.0.0.0 listens at every address."""
    rules = TargetRules(own=lambda: [Listener("0.0.0.0", 4200)], is_local=is_local_address)
    with pytest.raises(ConfigError, match="gateway itself"):
        rules.check(f"http://{own_address()}:4200")
    rules.check(f"http://{own_address()}:4299")
    rules.check("http://192.0.2.1:4200")


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


def test_a_socket_is_what_it_is_whatever_it_is_called(tmp_path: Path) -> None:
    with listening(tmp_path / "control.sock"), listening(tmp_path / "app.sock"):
        (tmp_path / "link").symlink_to(tmp_path / "control.sock")
        os.link(tmp_path / "control.sock", tmp_path / "hard")
        sockets = Sockets(own=[tmp_path / "control.sock"])
        for name in ("control.sock", "link", "hard"):
            assert sockets.forbidden(str(tmp_path / name)), name
        assert not sockets.forbidden(str(tmp_path / "app.sock"))
        assert sockets.forbidden("/run/docker.sock")
        assert sockets.forbidden(f"{tmp_path}/../../run/docker.sock") or tmp_path.parts[1] != "run"


def test_the_api_names_sockets_of_allowed_folders_and_of_the_file_only(tmp_path: Path) -> None:
    apps, other = tmp_path / "apps", tmp_path / "other"
    apps.mkdir()
    other.mkdir()
    (apps / "out").symlink_to(other)
    sockets = Sockets(allowed=[str(apps)], named=[str(other / "named.sock")])
    rules = TargetRules(forbidden=sockets.forbidden, unlisted=sockets.unlisted)
    rules.check_named(f"unix:{apps}/a.sock")
    rules.check_named(f"unix:{other}/named.sock")
    for path in (f"{other}/a.sock", f"{apps}/out/a.sock", f"{apps}/../other/a.sock"):
        with pytest.raises(ConfigError):
            rules.check_named(f"unix:{path}")
    rules.check(f"unix:{other}/a.sock")
