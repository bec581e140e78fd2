"""The welcome: what the first start prints, and the credentials that it writes."""

import os
from pathlib import Path

import msgspec

from scheduler.errors import StartupError
from scheduler.home import Credentials
from scheduler.service import Created


def write_credentials(path: Path, url: str, created: Created) -> None:
    """Write the credentials file, readable by its owner alone, whole or not at all."""
    content = Credentials(url, str(created.service.id), created.token)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
        draft.replace(path)
    except OSError as e:
        raise StartupError(f"{path} cannot be written: {e.strerror}") from None


def welcome(url: str, created: Created, credentials: Path) -> str:
    """Return what the first start prints, once."""
    return f"""
Scheduler is at {url}

  service_id  {created.service.id}
  token       {created.token}
  kept in     {credentials}

  dashboard   {url}/dashboard
  API         {url}/docs

A first task, every minute:

  curl -X POST {url}/tasks \\
    -H 'service_id: {created.service.id}' -H 'token: {created.token}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"name": "hello", "url": "https://example.com", "frequency": 1, "unit": "minute"}}'
"""
