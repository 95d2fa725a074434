"""Which access log is open: the one the settings ask for."""

from typing import Literal

from gateway.link.snapshot import ProxySettings
from gateway.log import get_logger
from gateway.worker.access_log import AccessLog

event_log = get_logger(component="access_log")


class LogFile:
    """`current` is the log to write to, None while it is off."""

    __slots__ = ("_dropped_before", "_settings", "current")

    def __init__(self) -> None:
        self.current: AccessLog | None = None
        self._settings: tuple[object, ...] = ("off", "-", "keep", None)
        self._dropped_before = 0
        """By logs closed since."""

    @property
    def dropped(self) -> int:
        """Lines that were not written, since the start."""
        return self._dropped_before + (self.current.dropped if self.current is not None else 0)

    def follow(self, proxy: ProxySettings) -> None:
        """Write the log the settings ask for, where they say."""
        settings = (
            proxy.access_log_format,
            proxy.access_log_path,
            proxy.access_log_query,
            proxy.access_log_only,
        )
        if settings == self._settings:
            return
        self._settings = settings
        self.close(wait_s=0)
        if proxy.access_log_format == "off":
            return
        style: Literal["json", "combined"] = "json" if proxy.access_log_format == "json" else "combined"
        try:
            log = AccessLog(
                style, proxy.access_log_path, query=proxy.access_log_query, only=proxy.access_log_only
            )
        except OSError as exc:
            event_log.error("access_log_not_opened", error=str(exc))
            return
        log.start()
        self.current = log

    def reopen(self) -> None:
        """Open the file anew if it was moved away."""
        if self.current is not None:
            self.current.reopen()

    def close(self, wait_s: float = 1.0) -> None:
        """Write what is left, for `wait_s` seconds at most."""
        if self.current is not None:
            self.current.close(wait_s)
            self._dropped_before += self.current.dropped
            self.current = None
