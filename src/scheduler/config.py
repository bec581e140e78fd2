"""Settings: one tree, read from defaults, then a file, then the environment, then flags.

The environment name of `worker.max_retries` is `WORKER_MAX_RETRIES`, and so for every other. The
sentence below a setting is what `scheduler config init` and docs/configuration.md say of it.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from scheduler import configfile
from scheduler.configfile import Tree
from scheduler.configvalues import as_meant, expected, no_cidr, slips, unfit
from scheduler.errors import StartupError

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One branch of the tree."""


class Server(Section):
    """Where the API listens."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for all of this machine's."""
    port: Port = 8080
    """0 takes a free port."""
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 4 << 20
    """Larger request bodies are answered 413 before they are read."""
    trusted_proxies: list[str] = msgspec.field(default_factory=list)
    """CIDRs of the reverse proxies whose X-Forwarded-For names the caller."""


class Database(Section):
    """The connections to Postgres."""

    url: str = ""
    """A Postgres 14 to 18, several hosts as libpq takes them. Empty: an embedded Postgres."""
    migrate: bool = True
    """Bring the schema up to date at start, else be refused until `scheduler migrate up` did."""
    engine_pool: Count = 4
    """Connections of the engine."""
    api_pool: Count = 6
    """Connections of requests."""
    statement_timeout_seconds: Seconds = 5.0
    """Of the engine's statements."""
    connect_timeout_seconds: Seconds = 5.0
    """How long opening a connection may take."""
    statement_cache: Annotated[int, Meta(ge=0)] = 200
    """Prepared statements a connection keeps; 0 behind PgBouncer in transaction mode."""
    listen_url: str = ""
    """A direct way to the same database, where `database.url` is a pooler: for LISTEN, migrations
    and whatever else needs a session of its own. Empty: `database.url`."""


class Data(Section):
    """The data directory: the embedded Postgres, `credentials.json`, the key file."""

    dir: str = ""
    """Empty: /var/lib/scheduler for root, else the user's data directory."""
    min_free_bytes: Annotated[int, Meta(ge=0)] = 256 << 20
    """With less free on the embedded database's disk nothing more is started; 0: not looked at."""


class Secret(Section):
    """What seals headers marked secret, and signing secrets, in the database."""

    key: str = ""
    """32 bytes in base64. Empty: a file made in the data directory at the first start."""


class Auth(Section):
    """Who may call, and the first service."""

    bootstrap_service: str = ""
    """The name of the service an empty database gets. Empty: `default`."""
    bootstrap_token: str = ""
    """Its token. Empty: a random one."""
    anonymous_service: str = ""
    """As whom requests without credentials act, see [services.md](services.md)."""
    anonymous_from: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    """CIDRs that such requests must come from."""
    cache_seconds: Annotated[float, Meta(gt=0, le=5)] = 2.0
    """How long a checked token is believed before the database is asked again."""


class Prequeuer(Section):
    """The planner's tick, under the names it had in an older program."""

    ticker_interval_seconds: Seconds = 1.0
    """How often triggers are turned into runs."""
    event_timeframe_minutes: Count = 10
    """How far ahead all of a schedule's events are shown."""


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
    """Runs claimed in one statement."""
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
    """How long opening a connection to a target may take."""
    max_response_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 1 << 20
    """More of a response body is not read."""
    max_redirects: Annotated[int, Meta(ge=0, le=50)] = 10
    """For tasks with `follow_redirects`."""
    idle_connection_seconds: Seconds = 15.0
    """How long a connection is kept for the next call."""


class Egress(Section):
    """Which addresses may be called: CIDRs, IP addresses, or host names (`*.example.com`)."""

    allow: list[str] = msgspec.field(default_factory=list)
    """Where there is any, nothing else is called."""
    deny: list[str] = msgspec.field(default_factory=list)
    """Never called."""
    public_only: bool = False
    """Refuse what is not a public address."""


class Runs(Section):
    """What is kept of a run."""

    response_max_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 64 << 10
    """Of the last answer's body; of earlier ones a KiB is kept at most."""


class Tasks(Section):
    """What a task may hold; one that holds more since before still runs as it is. And backfills."""

    payload_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 256 << 10
    """Each run under way, and each list, holds it in memory."""
    header_max_bytes: Annotated[int, Meta(ge=1024, le=128 << 10)] = 16 << 10
    """Of the names and values of all its headers together."""
    backfill_per_minute: Annotated[int, Meta(ge=1, le=60_000)] = 600
    """How many runs of a backfill fall due in a minute, where it names no `per_minute`."""
    backfill_most: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    """Instants that one call of a backfill looks at; its answer says where to go on."""


class Quotas(Section):
    """What a service may use that has no quota of its own, see [services.md](services.md)."""

    max_tasks: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """Tasks it may have; 0, as everywhere here: no limit."""
    max_runs_per_minute: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """Runs that requests make (execute, schedule, replay); those of triggers are never refused."""
    max_in_flight: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """Runs under way at once."""
    max_body_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    """Beside `server.max_body_bytes`, which holds for all."""


class Admin(Section):
    """`/services`."""

    token: str = ""
    """Asked for as `Authorization: Bearer`. Empty: `/services` answers 403."""


class History(Section):
    """Finished runs."""

    retention_days: Annotated[int, Meta(ge=1, le=36_500)] = 30
    """In whole weeks, from Monday 00:00 UTC: a week goes once all of it is older than this, so a
    run is kept for up to seven days more, and never for less, see [ledger.md](ledger.md)."""
    max_bytes: Annotated[int, Meta(ge=0)] = 0
    """The oldest weeks go while history takes more, indexes included; 0: no limit. Looked at once
    an hour. This week is never dropped, however large: the log says so where it alone is larger."""


class Metrics(Section):
    """`/metrics`."""

    token: str = ""
    """Asked for as `Authorization: Bearer`. Empty: `/metrics` is open."""


class Log(Section):
    """Log lines go to standard error."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """What is less than this is not said."""
    format: Literal["text", "json"] = "text"
    """For people, or for a program that collects them."""
    stdout: bool = True
    """`false` writes no log lines."""
    store: bool = False
    """Also keep log lines in the database."""
    store_retention_days: Annotated[int, Meta(ge=1, le=3650)] = 7
    """How long they are kept there."""
    store_max_lines: Annotated[int, Meta(ge=1000, le=1 << 40)] = 2_000_000
    """The oldest stored lines go where there are more; about 1 KiB each."""


class Commands(Section):
    """Shell commands as actions of tasks."""

    enabled: bool = False
    """Let services with `allow_commands` run shell commands."""
    user: str = ""
    """As whom they run, where the server is root. Empty: each run as a user of its own."""
    same_user: bool = False
    """Let them run as the server's own user, where the server is not root."""
    first_id: Annotated[int, Meta(ge=1000, le=1 << 30)] = 60_706
    """The first of the ids that runs get, one each: users, or groups of `commands.user`. Take a
    range that nobody else on the machine has; this one no distribution gives to anybody."""
    ids: Annotated[int, Meta(ge=2, le=1 << 20)] = 478
    """How many there are: two for each run at a time, and those of all replicas on the machine."""
    directory: str = ""
    """Where the private directories of runs are; the same for all replicas on a machine. Empty:
    /var/tmp/scheduler-commands for root, else one in the user's directory for temporary files."""
    concurrency: Count = 20
    """Concurrent commands of a replica."""
    cpu_seconds: Count = 3600
    """CPU time that a process of a command may use."""
    memory_bytes: Annotated[int, Meta(ge=1 << 20)] = 1 << 30
    """Address space that a process of a command may use."""
    processes: Count = 100
    """Processes that a command may have at once."""
    file_bytes: Annotated[int, Meta(ge=1024)] = 1 << 30
    """How large a file a command may write."""
    open_files: Annotated[int, Meta(ge=16, le=1 << 20)] = 1024
    """Files that a process of a command may have open."""
    output_bytes: Annotated[int, Meta(ge=1024)] = 1 << 20
    """Output that is read; a command that writes more is ended."""
    kill_seconds: Seconds = 5.0
    """The time between SIGTERM and SIGKILL."""


class Specs(Section):
    """OpenAPI documents, see [specs.md](specs.md)."""

    max_bytes: Annotated[int, Meta(ge=1024, le=64 << 20)] = 8 << 20
    """Of a document; it may be sent whatever `server.max_body_bytes` says."""
    max_depth: Annotated[int, Meta(ge=10, le=500)] = 100
    """How deep its values may be nested."""
    max_operations: Count = 5000
    """Of one document."""
    max_specs: Count = 1000
    """Of one service."""
    compile_seconds: Seconds = 60.0
    """How long validating a document may take, and so compiling and reviewing it."""
    package_seconds: Seconds = 120.0
    """How long writing the Python client of a document may take."""
    review: Literal["automatic", "manual"] = "automatic"
    """With `manual` a spec waits at READY_CLIENT for `POST /v1/api/spec/{trace_id}/review`."""


class Processes(Section):
    """Asynchronous calls through specs."""

    spec_wait_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    """How long a call waits for a spec that has never been ready yet."""
    response_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 10 << 20
    """Of an answer, as it comes and when it is unpacked; a call that is answered more fails."""
    body_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 1 << 20
    """Of all that one call sends."""


class Cache(Section):
    """Answers to processes that are shared."""

    ttl_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    """How long; 0 for not at all."""
    entry_max_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 1 << 20
    """A longer answer is not shared."""
    max_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 256 << 20
    """Of all of them in the database; the oldest go first."""


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
    commands: Commands = msgspec.field(default_factory=Commands)
    specs: Specs = msgspec.field(default_factory=Specs)
    processes: Processes = msgspec.field(default_factory=Processes)
    cache: Cache = msgspec.field(default_factory=Cache)


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
