"""What doctor looks at beside the database: settings, disk, the port, the network, the API."""

import asyncio
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec

from scheduler import home, reaching, server
from scheduler.actions import command_rights
from scheduler.config import Loaded, Settings
from scheduler.doctor.finding import Finding, fail, ok, warn, words
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

PROBE_S = 2.0
FULL = 0.05
"""Of a disk: with less free than this part of it, someone should look."""


def settings(loaded: Loaded) -> list[Finding]:
    """Say where the settings come from, and what in them is odd."""
    file = f"file {loaded.file}" if loaded.file else "no file"
    kinds = [source.kind for source in loaded.sources.values()]
    outside = len(kinds) - kinds.count("file")
    told = f"{file}, {kinds.count('file')} from it, {outside} from the environment"
    todo = "correct or remove it"
    return [ok("settings", told), *(warn("settings", note, todo) for note in loaded.notes)]


def disk(base: Path, least: int) -> Finding:
    """Say how much room the embedded database has; `least` in bytes."""
    there = next(path for path in (base, *base.parents) if path.exists())
    usage = shutil.disk_usage(there)
    told = f"{usage.free >> 20} MiB free of {usage.total >> 20} at {base}"
    if usage.free < least:
        return fail("disk", f"{told}: nothing more is started", "make room; see docs/operating.md")
    if usage.free < usage.total * FULL:
        return warn("disk", told, "make room, or lower HISTORY_RETENTION_DAYS")
    return ok("disk", told)


def commands(wanted: Settings) -> list[Finding]:
    """Say as whom commands would run here; nothing where they are off."""
    try:
        rules = command_rights.judged(wanted.commands, server.postgres_user(wanted))
        if isinstance(rules, str):
            off = not wanted.commands.enabled
            return (
                [] if off else [warn("commands", f"none may run: {rules}", "see docs/commands.md")]
            )
        command_rights.prepare(rules)
    except StartupError as e:
        return [fail("commands", str(e), "see docs/commands.md")]
    who = "users of their own" if rules.alone else f"user {rules.uid}"
    return [ok("commands", f"run as {who if rules.drops else 'the user of this process'}")]


async def port(wanted: Settings) -> Finding:
    """Say who listens where the API is to be."""
    if wanted.server.port == 0:
        return ok("port", "any free one, SERVER_PORT is 0")
    url = server.configured(wanted).replace("//0.0.0.0:", "//127.0.0.1:")
    url = url.replace("//[::]:", "//[::1]:")
    try:
        async with httpx.AsyncClient(timeout=PROBE_S, trust_env=False) as client:
            answer = await client.get(f"{url}/health")
        ours = "x-trace-id" in answer.headers and answer.json() == {"status": "ok"}
    except httpx.ConnectError:
        todo = "start `scheduler serve`, unless it is not meant to run here"
        return warn("port", f"nobody listens at {url}", todo)
    except (httpx.HTTPError, ValueError):
        ours = False
    if ours:
        return ok("port", f"a scheduler listens at {url}")
    return fail(
        "port", f"something else listens at {url}", "stop it, or choose another SERVER_PORT"
    )


async def api(file: Path) -> Finding:
    """Say whether the credentials in a file open the API that it names."""
    name = "credentials"
    try:
        found = msgspec.json.decode(file.read_bytes(), type=home.Credentials)
    except FileNotFoundError:
        todo = "`scheduler services rotate NAME` makes a token, if clients here need one"
        return warn(name, f"no {file}", todo)
    except PermissionError as e:
        todo = "run this as the user that `scheduler serve` runs as"
        return fail(name, f"{file} cannot be read: {words(e)}", todo)
    except (OSError, msgspec.MsgspecError) as e:
        return fail(name, f"{file} cannot be read: {words(e)}", "put it back, or remove it")
    headers = {"service_id": found.service_id, "token": found.token}
    try:
        async with httpx.AsyncClient(timeout=PROBE_S, trust_env=False) as client:
            answer = await client.get(f"{found.url}/tasks?count=1", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
        return warn(name, f"the API at {found.url} does not answer: {words(e)}", "is it running?")
    if answer.status_code == 200:
        return ok(name, f"{file} opens {found.url}")
    if answer.status_code == 401:
        todo = "its token was revoked: `scheduler services rotate NAME` makes another"
        return fail(name, f"{found.url} refuses the credentials in {file}", todo)
    return warn(name, f"{found.url} answers {answer.status_code}", "see its log")


def egress(wanted: Settings, url: str) -> list[Finding]:
    """Say which rules of egress are set."""
    try:
        server.rules(wanted, url, server.configured(wanted))
    except StartupError as e:
        return [fail("egress", str(e), "correct it")]
    rules = wanted.egress
    parts = [f"{len(rules.allow)} allowed alone"] if rules.allow else []
    parts += [f"{len(rules.deny)} denied"] if rules.deny else []
    parts += ["public addresses only"] if rules.public_only else []
    own = ", ".join(f"{host}:{at}" for host, at in reaching.database_addresses(url))
    own = ", ".join(filter(None, [server.configured(wanted).removeprefix("http://"), own]))
    told = f"{'; '.join(parts) or 'no rules'}; never {own}, link-local and metadata addresses"
    return [ok("egress", told)]


async def names() -> Finding:
    """Say whether names of hosts can be looked up at all."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError as e:
        told = f"this machine's own name is not found: {words(e)}"
        return warn("names", told, "look at /etc/hosts and /etc/resolv.conf")
    servers = _resolvers()
    addresses = {str(each[4][0]) for each in found}
    told = f"looked up by {', '.join(servers) or 'this machine alone'}; "
    told += f"we are {', '.join(sorted(addresses))}"
    return ok("names", told)


def _resolvers() -> list[str]:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[1] for line in lines if line.startswith("nameserver ")]


def embedded(base: Path, stack: ExitStack) -> tuple[str | None, Finding]:
    """Return the address of the embedded Postgres, and what is to be said of it.

    One that does not run is started until the stack ends; one that was never made stays so.
    """
    name = "embedded Postgres"
    try:
        url = EmbeddedPostgres.join(base)
        if url is not None:
            return url, ok(name, f"runs in {base}")
        if not (base / "postgres" / "data" / "PG_VERSION").exists():
            return None, _none(name, base)
        postgres = EmbeddedPostgres(base)
        postgres.start()
    except StartupError as e:
        return None, fail(name, str(e), "see docs/operating.md")
    stack.callback(postgres.stop)
    return postgres.url, ok(name, f"in {base}, started for this look")


def _none(name: str, base: Path) -> Finding:
    """Say that there is no database, or that there is none any more."""
    if not (base / home.CREDENTIALS).exists():
        return warn(name, f"none in {base} yet", "`scheduler serve` makes it")
    data = base / "postgres" / "data"
    return fail(
        name,
        f"it was in {data}, and is not there",
        "put its files back, or stop the scheduler and `scheduler restore` a backup",
    )
