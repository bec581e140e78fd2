"""The flags that set settings, as `scheduler serve` and `scheduler config show` take them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from scheduler import config

Command = TypeVar("Command", bound=Callable[..., Any])

KINDS: dict[str, type] = {
    "server.port": int,
    "prequeuer.ticker_interval_seconds": float,
    "prequeuer.event_timeframe_minutes": int,
    "worker.count": int,
    "worker.max_retries": int,
}
HELP = {
    "server.host": "Listen on this address.",
    "server.port": "Listen on this port; 0 takes a free one.",
    "prequeuer.ticker_interval_seconds": "Seconds between planning ticks.",
    "prequeuer.event_timeframe_minutes": "How far ahead events are shown.",
    "worker.count": "Concurrent callbacks.",
    "worker.max_retries": "Tries after the first.",
    "log.level": "debug, info, warn or error.",
}


def config_flags(*sections: str) -> Callable[[Command], Command]:
    """Add the flags of some sections, or of all, to a command."""

    def add(command: Command) -> Command:
        for path, flag in reversed(config.FLAGS.items()):
            if not sections or path.partition(".")[0] in sections:
                option = click.option(flag, _name(flag), type=KINDS.get(path), help=HELP[path])
                command = option(command)
        return command

    return add


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def paths(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, by the path of its setting; None where a flag was not."""
    named = {_name(flag): path for path, flag in config.FLAGS.items()}
    return {named[name]: value for name, value in flags.items()}
