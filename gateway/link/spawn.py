"""What a worker is born with: the order to the template process, which forks it."""

import msgspec

from gateway.link.messages import ListenerName


class ListenSpec(msgspec.Struct, frozen=True):
    """One `[[listen]]` table, as a worker needs it."""

    address: str
    """`host:port` as configured."""
    tls: bool = False
    """With the certificates of the settings in force."""
    proxy_protocol: bool = False


class Spawn(msgspec.Struct, frozen=True, tag="spawn", tag_field="t"):
    """Fork a worker. Its end of the link, then its listening descriptors, travel with the message."""

    slot: int
    incarnation: str
    link_path: str
    """Where it finds the next control once its first link is lost."""
    listens: tuple[ListenSpec, ...]
    listeners: tuple[ListenerName, ...]
    """What each listening descriptor is, in order."""
    orphan_timeout_s: float = 3600.0
    leftovers: tuple[str, ...] = ()
    """Files of its control, which the last of its orphans removes when nobody has followed."""
    drain_s: float = 30.0
    release: str = ""
    progress_cell: int = 0
    """Which of the shared progress counters it raises."""
