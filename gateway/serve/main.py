"""Where the control process begins, and with what code it ends."""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import uvloop

from gateway import log
from gateway.config import Config
from gateway.control.processes.succession import Succession
from gateway.control.processes.template import Template
from gateway.net.listener import raise_descriptor_limit
from gateway.serve import loading, signals
from gateway.serve.process import Control
from gateway.worker.main import run_worker


def main(config_path: str | None = None, overrides: Mapping[str, Any] | None = None) -> int:
    """Run the gateway until it is to stop. Returns the exit code; raises ConfigError first of all."""
    log.configure()
    signals.hold_back()

    load = partial(loading.load, config_path, overrides)
    settings = load()
    raise_descriptor_limit()
    succession = Succession.from_environ(os.environ)
    template = Template.start(run_worker)
    return uvloop.run(_run(settings, load, template, succession))


async def _run(
    settings: Config, reload: Callable[[], Config], template: Template, succession: Succession | None
) -> int:
    control = Control(settings, reload, template)
    control.listen_to_signals()
    try:
        await control.start(succession)
    except BaseException as exc:
        if succession is not None:
            succession.failed(str(exc) or type(exc).__name__)
        await control.abandon()
        if isinstance(exc, asyncio.CancelledError) and control.is_stopping:
            return 0
        raise
    return await control.serve()
