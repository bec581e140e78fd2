"""The data directory, and the credentials that the first start leaves in it for clients."""

import os
from pathlib import Path

import msgspec
import platformdirs

from scheduler.config import Settings

CREDENTIALS = "credentials.json"


class Credentials(msgspec.Struct):
    """What a client needs; the content of the credentials file."""

    url: str
    service_id: str
    token: str


def data_dir(settings: Settings) -> Path:
    """Return the data directory that is meant."""
    if settings.data.dir:
        return Path(settings.data.dir).expanduser().absolute()
    if os.name != "nt" and os.geteuid() == 0:
        return Path("/var/lib/scheduler")
    return Path(platformdirs.user_data_dir("scheduler"))
