"""All of doctor's checks, in the order in which an operator wants to read them."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from scheduler import home
from scheduler.config import Loaded
from scheduler.db import Database
from scheduler.doctor import database, machine
from scheduler.doctor.finding import Finding, checked


async def examine(loaded: Loaded, credentials: Path | None = None) -> list[Finding]:
    """Return what is found; whatever is away or broken is a finding, and the rest goes on.

    `credentials` is the file a client reads; default the one in the data directory. Raises
    StartupError where the settings themselves are wrong.
    """
    settings = loaded.settings
    base = home.data_dir(settings)
    found = machine.settings(loaded)
    with ExitStack() as stack:
        url: str | None = settings.database.url
        if not url:
            url, told = machine.embedded(base, stack)
            found += [told, machine.disk(base, settings.data.min_free_bytes)]
        if url:
            found += await _database(loaded, url, base)
    file = credentials or base / home.CREDENTIALS
    found += await checked("port", partial(_one, machine.port, settings), "")
    found += await checked("credentials", partial(_one, machine.api, file), "")
    found += machine.commands(settings)
    found += machine.egress(settings, url or "")
    found += await checked("names", partial(_one, machine.names), "look at /etc/resolv.conf")
    return found


async def _one(check: object, *arguments: object) -> list[Finding]:
    return [await check(*arguments)]  # type: ignore[operator]


async def _database(loaded: Loaded, url: str, base: Path) -> list[Finding]:
    settings = loaded.settings
    found = await checked(
        "database", partial(database.reach, url, settings), "check DATABASE_URL, and that it runs"
    )
    if any(each.state == "fail" for each in found):
        return found
    opened = Database(url, settings.database)
    try:
        return [*found, *await database.Asked(opened, settings, base).all()]
    finally:
        await opened.close()
