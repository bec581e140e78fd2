"""Settings: one tree, read from defaults, then a file, then the environment, then flags.

The environment name of `worker.max_retries` is `WORKER_MAX_RETRIES`, and so for every other.
"""

import difflib
import ipaddress
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import yaml
from msgspec import Meta

from scheduler.errors import StartupError

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One branch of the tree."""


class Server(Section):
    """Where the API listens."""

    host: str = "127.0.0.1"
    port: Port = 8080
    """0 takes a free port."""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 4 << 20
    """Larger request bodies are answered 413 before they are read."""
    trusted_proxies: list[str] = msgspec.field(default_factory=list)
    """CIDRs of the reverse proxies whose X-Forwarded-For names the caller."""


class Database(Section):
    """The connections to Postgres. `DATABASE_URL` empty: an embedded Postgres."""

    url: str = ""
    migrate: bool = True
    """Bring the schema up to date at start, one replica at a time."""
    engine_pool: Count = 4
    api_pool: Count = 6
    statement_timeout_seconds: Seconds = 5.0
    """Of the engine's statements."""
    connect_timeout_seconds: Seconds = 5.0
    statement_cache: Annotated[int, Meta(ge=0)] = 200
    """Prepared statements a connection keeps; 0 behind PgBouncer in transaction mode."""
    listen_url: str = ""
    """Where to LISTEN, when `url` is a pooler; default `url`."""


class Data(Section):
    """The data directory."""

    dir: str = ""
    """Default: /var/lib/scheduler for root, else the user's data directory."""
    min_free_bytes: Annotated[int, Meta(ge=0)] = 256 << 20
    """With less free on the embedded database's disk nothing more is started; 0: not looked at."""


class Secret(Section):
    """What seals headers marked secret, and signing secrets, in the database."""

    key: str = ""
    """32 bytes in base64. Default: a file made in the data directory at the first start."""


class Auth(Section):
    """Credentials."""

    bootstrap_service: str = ""
    """The name of the service an empty database gets; default `default`."""
    bootstrap_token: str = ""
    """Its token; default a random one."""
    anonymous_service: str = ""
    """Requests without credentials act as this service, on the conditions the README names."""
    anonymous_from: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    cache_seconds: Annotated[float, Meta(gt=0, le=5)] = 2.0
    """How long a checked token is believed before the database is asked again."""


class Prequeuer(Section):
    """The planner's tick."""

    ticker_interval_seconds: Seconds = 1.0
    event_timeframe_minutes: Count = 10


class Planner(Section):
    """Turning triggers into runs."""

    window_seconds: Annotated[float, Meta(ge=2, le=3600)] = 60.0
    """Runs are made this far ahead; topped up at half."""
    batch: Count = 500
    """Tasks planned in one transaction."""


class Worker(Section):
    """Performing runs."""

    count: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Concurrent callbacks."""
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 3
    """Tries after the first, where the task names none."""
    service_share: Annotated[float, Meta(gt=0, le=1)] = 0.75
    """The part of `worker.count` that one service may hold in flight."""
    poll_seconds: Seconds = 0.7
    """How often the queue is looked at without being told."""
    ahead_seconds: Annotated[float, Meta(gt=0, le=5)] = 1.0
    """Runs are claimed this long before their instant and held."""
    claim_batch: Count = 500
    max_held: Count = 10_000
    """Runs held in memory."""
    queue_most: Count = 100
    """Due runs that wait in the queue of a task with `overlap: queue`; more are skipped."""
    max_unsettled: Count = 20_000
    """Outcomes not yet written, at which nothing more is sent."""
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 25.0
    """How long calls in flight may finish after SIGTERM."""


class Http(Section):
    """Calls to targets."""

    connect_timeout_seconds: Seconds = 10.0
    max_response_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 1 << 20
    """More of a response body is not read."""
    max_redirects: Annotated[int, Meta(ge=0, le=50)] = 10
    idle_connection_seconds: Seconds = 15.0


class Egress(Section):
    """Which addresses may be called. CIDRs, IP addresses, or host names (`*.example.com`)."""

    allow: list[str] = msgspec.field(default_factory=list)
    """Not empty: nothing else."""
    deny: list[str] = msgspec.field(default_factory=list)
    public_only: bool = False


class Runs(Section):
    """What is kept of a run."""

    response_max_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 64 << 10


class Tasks(Section):
    """What a task may hold; one that holds more since before still runs as it is."""

    payload_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 256 << 10
    """Each run under way, and each list, holds it in memory."""
    header_max_bytes: Annotated[int, Meta(ge=1024, le=128 << 10)] = 16 << 10
    """Of the names and values of all its headers together."""


class Quotas(Section):
    """What a service may use where nothing else is set for it; 0: no limit."""

    max_tasks: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    max_runs_per_minute: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """Runs that requests make (execute, schedule, replay); those of triggers are never refused."""
    max_in_flight: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    max_body_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """Beside `server.max_body_bytes`, which holds for all."""


class Admin(Section):
    """`/services`."""

    token: str = ""
    """Asked for as `Authorization: Bearer`; empty: `/services` answers 403."""


class History(Section):
    """Finished runs."""

    retention_days: Annotated[int, Meta(ge=1, le=36_500)] = 30
    """In whole weeks, from Monday 00:00 UTC: a week goes once all of it is older than this, so a
    run is kept for up to seven days more, and never for less."""
    max_bytes: Annotated[int, Meta(ge=0)] = 0
    """The oldest weeks go while history takes more, indexes included; 0: no limit. Looked at once
    an hour. This week is never dropped, however large: the log says so where it alone is larger."""


class Metrics(Section):
    """`/metrics`."""

    token: str = ""
    """Not empty: needed as `Authorization: Bearer`."""


class Log(Section):
    """Log lines go to standard error."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["text", "json"] = "text"
    stdout: bool = True
    store: bool = False
    """Also keep log lines in the database."""
    store_retention_days: Annotated[int, Meta(ge=1, le=3650)] = 7
    store_max_lines: Annotated[int, Meta(ge=1000, le=1 << 40)] = 2_000_000
    """The oldest stored lines go where there are more; about 1 KiB each."""


class Settings(Section):
    """The whole tree."""

    server: Server = msgspec.field(default_factory=Server)
    database: Database = msgspec.field(default_factory=Database)
    data: Data = msgspec.field(default_factory=Data)
    secret: Secret = msgspec.field(default_factory=Secret)
    auth: Auth = msgspec.field(default_factory=Auth)
    prequeuer: Prequeuer = msgspec.field(default_factory=Prequeuer)
    planner: Planner = msgspec.field(default_factory=Planner)
    worker: Worker = msgspec.field(default_factory=Worker)
    http: Http = msgspec.field(default_factory=Http)
    egress: Egress = msgspec.field(default_factory=Egress)
    runs: Runs = msgspec.field(default_factory=Runs)
    tasks: Tasks = msgspec.field(default_factory=Tasks)
    quotas: Quotas = msgspec.field(default_factory=Quotas)
    admin: Admin = msgspec.field(default_factory=Admin)
    history: History = msgspec.field(default_factory=History)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    log: Log = msgspec.field(default_factory=Log)


SECRET = {
    "database.url",
    "database.listen_url",
    "auth.bootstrap_token",
    "secret.key",
    "metrics.token",
    "admin.token",
}
ALIASES = {
    "API_SCHEDULER_AUTH_USERNAME": "auth.bootstrap_service",
    "API_SCHEDULER_AUTH_PASSWORD": "auth.bootstrap_token",
    "GLOGS_LOG_TYPE": "log.format",
    "GLOGS_WRITE_STDOUT": "log.stdout",
    "GLOGS_INSERT_MONGODB": "log.store",
}
IGNORED = ("MONGO_", "REDIS_", "RABBITMQ_")
IGNORED_SECTIONS = {"mongo", "redis"}
FILES = ("config.yaml", "config/config.yaml")


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
    """Return the settings in force.

    `flags` maps `section.name` to a value; None means not given.
    Raises StartupError with the path of what is wrong and what was expected.
    """
    for name in sorted(environ):
        if name.startswith(IGNORED):
            _warn(f"{name} is ignored: there is no such part here any more")
    tree = _from_file(file)
    for section, name, kind in paths():
        value = environ.get(environment_name(section, name))
        if value is not None:
            tree.setdefault(section, {})[name] = _listed(value) if kind == list[str] else value
    for alias, path in ALIASES.items():
        section, name = path.split(".")
        if alias in environ and environment_name(section, name) not in environ:
            tree.setdefault(section, {})[name] = environ[alias]
    for path, value in (flags or {}).items():
        if value is not None:
            section, name = path.split(".")
            tree.setdefault(section, {})[name] = value
    return _convert(tree)


def _warn(sentence: str) -> None:
    print(f"scheduler: {sentence}", file=sys.stderr)  # noqa: T201  (logging is not set up yet)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _from_file(file: str | None) -> dict[str, dict[str, Any]]:
    path = next((Path(p) for p in ([file] if file else FILES) if Path(p).is_file()), None)
    if path is None:
        if file:
            raise StartupError(f"{file}: there is no such file")
        return {}
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as e:
        raise StartupError(f"{path}: cannot be read as YAML: {e}") from None
    if not isinstance(tree, dict):
        raise StartupError(f"{path}: expected sections, each with its settings below it")
    for section in IGNORED_SECTIONS & tree.keys():
        _warn(f"{path}: {section} is ignored: there is no such part here any more")
        del tree[section]
    tree = {section: {} if values is None else values for section, values in tree.items()}
    if not all(isinstance(values, dict) for values in tree.values()):
        raise StartupError(f"{path}: expected sections, each with its settings below it")
    _check_names(tree, str(path))
    return tree


def _check_names(tree: dict[str, dict[str, Any]], where: str) -> None:
    known = {f"{section}.{name}" for section, name, _ in paths()}
    for section, values in tree.items():
        for name in values:
            path = f"{section}.{name}"
            if path not in known:
                near = difflib.get_close_matches(path, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise StartupError(f"{where}: there is no setting {path}{hint}")


def _convert(tree: dict[str, dict[str, Any]]) -> Settings:
    for section, name, kind in paths():
        if name not in tree.get(section, {}):
            continue
        value = tree[section][name]
        try:
            tree[section][name] = msgspec.convert(_text(value, kind), kind, strict=False)
        except msgspec.ValidationError as e:
            expected = _expected(e, kind)
            shown = "" if f"{section}.{name}" in SECRET else f", got {value!r}"
            raise StartupError(
                f"{section}.{name} ({environment_name(section, name)}): {expected}{shown}"
            ) from None
    settings = msgspec.convert(tree, Settings)
    _check_cidrs("auth.anonymous_from", settings.auth.anonymous_from)
    _check_cidrs("server.trusted_proxies", settings.server.trusted_proxies)
    return settings


def _check_cidrs(path: str, cidrs: list[str]) -> None:
    for cidr in cidrs:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as e:
            variable = environment_name(*path.split("."))
            raise StartupError(
                f"{path} ({variable}): expected CIDRs like 10.0.0.0/8: {e}"
            ) from None


def _expected(error: msgspec.ValidationError, kind: type) -> str:
    if getattr(kind, "__origin__", None) is Literal:
        return f"expected one of {', '.join(get_args(kind))}"
    return str(error)


def _text(value: Any, kind: type) -> Any:
    """Return a level or format in lower case, as people write it in any."""
    if isinstance(value, str) and getattr(kind, "__origin__", None) is Literal:
        return {"warning": "warn"}.get(value.lower(), value.lower())
    return value
