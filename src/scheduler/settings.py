"""The tree of settings: a type for each section, and below each setting what is said of it.

That sentence is what `scheduler config init` and docs/configuration.md say of the setting.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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
    max_held_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 256 << 20
    """Of all response bodies of over 64 KiB that a replica has in memory; others wait to be read on
    until there is room, and one always fits."""
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
    max_kept_bytes: Annotated[int, Meta(ge=0, le=1 << 50)] = 1 << 30
    """Of specs with their clients, and of answers to processes that are longer than a run keeps or
    are shared; counted once a minute."""


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
    """How long a call waits for a spec that has never been ready yet, from its first try on."""
    response_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 10 << 20
    """Of an answer, as it comes and when it is unpacked; a call that is answered more fails."""
    body_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 1 << 20
    """Of all that one call sends."""
    check_max_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 1 << 20
    """A longer body is sent without being held against its schema: a megabyte takes about three
    seconds of a child process, which checks bodies over 256 KiB one at a time."""


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
