"""`scheduler worker`: a replica without the API, on the same database as the servers'."""

import asyncio
import contextlib
import time
from pathlib import Path

from scheduler import home, logs, opening, reaching, server
from scheduler.config import Settings, secrets
from scheduler.embedded import EmbeddedPostgres, InUse
from scheduler.joining import Joiners

TURN_S = 0.2
"""How often a Postgres that another scheduler is starting is asked for."""


def work(settings: Settings, health_port: int | None = None) -> None:
    """Run a replica until a signal says stop. Raises StartupError.

    `health_port` serves `/health`, `/ready` and `/metrics` on `server.host`; None listens nowhere.
    """
    logs.configure(settings.log, "scheduler.worker", known=secrets(settings))
    opening.judge(settings)
    with server.stoppable() as stack:
        sock = None
        if health_port is not None:
            sock = stack.enter_context(server.listening(settings, health_port))
        url, postgres, joiners = settings.database.url, None, None
        if not url:
            url, postgres, joiners = _embedded(home.data_dir(settings), stack)
        asyncio.run(reaching.prepared(settings, url))
        own = server.address(sock) if sock else server.configured(settings)
        process = server.Process(
            settings, url, postgres, own, None, joiners=joiners if postgres else None
        )
        process.run(sock)


def _embedded(
    base: Path, stack: contextlib.ExitStack
) -> tuple[str, EmbeddedPostgres | None, Joiners]:
    """Join the Postgres that runs on the data directory, or be the one that runs it."""
    joiners = Joiners(base)
    stack.callback(joiners.release)
    told = False
    while True:
        url = EmbeddedPostgres.join(base)
        if url is not None:
            joiners.enter()
            return url, None, joiners
        postgres = EmbeddedPostgres(base)
        try:
            postgres.lock()
        except InUse:
            if not told:
                server.say(f"Waiting for the Postgres that another scheduler starts on {base}.")
                told = True
            time.sleep(TURN_S)
            continue
        stack.callback(postgres.stop)
        postgres.start(server.say)
        return postgres.url, postgres, joiners
