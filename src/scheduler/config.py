"""Settings, read from defaults, then a file, then the environment, then flags; the later wins.

The tree stands in settings.py. The environment name of `worker.max_retries` is
`WORKER_MAX_RETRIES`, and so for every other.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from scheduler import configfile
from scheduler.configfile import Tree
from scheduler.configvalues import as_meant, expected, no_cidr, slips, unfit
from scheduler.errors import StartupError
from scheduler.settings import (
    Admin,
    Auth,
    Cache,
    Commands,
    Data,
    Database,
    Egress,
    History,
    Http,
    Log,
    Metrics,
    Planner,
    Prequeuer,
    Processes,
    Quotas,
    Runs,
    Secret,
    Server,
    Settings,
    Specs,
    Tasks,
    Worker,
)

__all__ = [
    "ALIASES",
    "FLAGS",
    "SECRET",
    "Admin",
    "Auth",
    "Cache",
    "Commands",
    "Data",
    "Database",
    "Egress",
    "History",
    "Http",
    "Loaded",
    "Log",
    "Metrics",
    "Planner",
    "Prequeuer",
    "Processes",
    "Quotas",
    "Runs",
    "Secret",
    "Server",
    "Settings",
    "Source",
    "Specs",
    "Tasks",
    "Worker",
    "environment_name",
    "load",
    "paths",
    "problems",
    "read",
    "secrets",
]

SECRET = {"database.url", "database.listen_url", "auth.bootstrap_token"}
SECRET |= {"secret.key", "metrics.token", "admin.token"}
ALIASES = {
    "API_SCHEDULER_AUTH_USERNAME": "auth.bootstrap_service",
    "API_SCHEDULER_AUTH_PASSWORD": "auth.bootstrap_token",
    "GLOGS_LOG_TYPE": "log.format",
    "GLOGS_WRITE_STDOUT": "log.stdout",
    "GLOGS_INSERT_MONGODB": "log.store",
}
FLAGS = {
    "server.host": "--host",
    "server.port": "--port",
    "prequeuer.ticker_interval_seconds": "--prequeuer-ticker-seconds",
    "prequeuer.event_timeframe_minutes": "--prequeuer-timeframe-minutes",
    "worker.count": "--worker-count",
    "worker.max_retries": "--worker-max-retries",
    "log.level": "--log-level",
}
"""Of `scheduler serve`, by the setting that each sets."""
IGNORED = ("MONGO_", "REDIS_", "RABBITMQ_")
IGNORED_SECTIONS = {"mongo", "redis"}
CIDRS = ("auth.anonymous_from", "server.trusted_proxies")
GONE = "is ignored: there is no such part here any more"


class Source(msgspec.Struct, frozen=True):
    """Where a value comes from; `name` is the file, the variable or the flag."""

    kind: Literal["default", "file", "environment", "alias", "flag"]
    name: str = ""


Over = dict[str, tuple[Any, Source]]


class Loaded(msgspec.Struct):
    """What was read: the tree, where each of its values comes from, what is odd, what is wrong."""

    tree: Tree
    sources: dict[str, Source]
    file: Path | None
    notes: list[str]
    wrong: list[str]

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises StartupError with the first thing that is wrong."""
        if self.wrong:
            raise StartupError(self.wrong[0])
        return msgspec.convert(self.tree, Settings)


def paths() -> Iterator[tuple[str, str, type]]:
    """Yield (section, name, type) of every setting."""
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            yield section.name, field.name, field.type


def secrets(settings: Settings) -> list[str]:
    """Return the values that nobody may see, and the passwords in those that are URLs."""
    found = []
    for path in sorted(SECRET):
        section, name = path.split(".")
        value = getattr(getattr(settings, section), name)
        userinfo = value.partition("://")[2].rpartition("@")[0]
        found += [value, userinfo.partition(":")[2]] if userinfo else [value]
    return [value for value in found if value]


def environment_name(section: str, name: str) -> str:
    """`worker`, `max_retries` -> `WORKER_MAX_RETRIES`."""
    return f"{section}_{name}".upper()


def load(
    *,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings in force, and say on standard error what was odd.

    `flags` maps `section.name` to a value; None means not given.
    Raises StartupError with the path of what is wrong and what was expected.
    """
    loaded = read(file=file, environ=environ, flags=flags)
    settings = loaded.settings
    for note in loaded.notes:
        print(f"scheduler: {note}", file=sys.stderr)  # noqa: T201  (logging is not set up yet)
    return settings


def read(
    *,
    file: str | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read the same as `load`, with the sources and all that is odd or wrong, and say nothing.

    Raises StartupError where the file cannot be read at all.
    """
    known = {f"{section}.{name}" for section, name, _ in paths()}
    found = configfile.read(file, known, IGNORED_SECTIONS)
    notes = [f"{name} {GONE}" for name in sorted(environ) if name.startswith(IGNORED)]
    notes += [f"{found.path}: {section} {GONE}" for section in found.ignored]
    notes += slips(environ.keys() - ALIASES.keys(), [(s.upper(), n.upper()) for s, n, _ in paths()])
    tree = found.tree
    from_file = Source("file", str(found.path))
    sources = {f"{s}.{name}": from_file for s, values in tree.items() for name in values}
    for path, (value, source) in _overlay(environ, flags or {}).items():
        section, name = path.split(".")
        tree.setdefault(section, {})[name] = value
        sources[path] = source
    wrong = [f"{found.path}: {sentence}" for sentence in found.unknown] + problems(tree, sources)
    return Loaded(tree, sources, found.path, notes, wrong)


def _overlay(environ: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, tuple[Any, Source]]:
    """Return what the environment and the flags set, the later in place of the earlier."""
    over: Over = {}
    for alias, path in ALIASES.items():
        if alias in environ:
            over[path] = environ[alias], Source("alias", alias)
    for section, name, _ in paths():
        variable = environment_name(section, name)
        if variable in environ:
            over[f"{section}.{name}"] = environ[variable], Source("environment", variable)
    for path, value in flags.items():
        if value is not None:
            over[path] = value, Source("flag", FLAGS.get(path, path))
    return over


# Values ------------------------------------------------------------------------------------------


def problems(tree: Tree, sources: Mapping[str, Source]) -> list[str]:
    """Put each value as its type has it; return a sentence for each that cannot be."""
    found = []
    for section, name, kind in paths():
        if name not in tree.get(section, {}):
            continue
        value, path = tree[section][name], f"{section}.{name}"
        told = f"{path} ({_variable(section, name, sources)}): expected"
        try:
            taken: Any = msgspec.convert(as_meant(value, kind), kind, strict=False)
        except msgspec.ValidationError:
            shown = "" if path in SECRET else f", got {value!r}"
            found.append(f"{told} {expected(kind)}{shown}")
            continue
        tree[section][name] = taken
        other = unfit(path, taken)
        if other:
            found.append(f"{told} {other}" + ("" if path in SECRET else f", got {value!r}"))
        wrong = no_cidr(taken) if path in CIDRS else ""
        if wrong:
            found.append(f"{told} CIDRs like 10.0.0.0/8: {wrong}")
    return found


def _variable(section: str, name: str, sources: Mapping[str, Source]) -> str:
    """Return the variable that sets a value: the older name where it was that one."""
    source = sources.get(f"{section}.{name}")
    return source.name if source and source.kind == "alias" else environment_name(section, name)
