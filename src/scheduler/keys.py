"""The secrets key: read from the settings, or from a file that is made once."""

import base64
import binascii
import os
import secrets
from pathlib import Path

from scheduler.errors import StartupError
from scheduler.sealing import KEY_BYTES

FILE = "secret.key"
MAKE_ONE = "`scheduler secrets key` prints a new one"
PUT_BACK = "It was whole once: put your copy of it back; a new one opens nothing that is stored"


def new() -> str:
    """Return a new key, as SECRET_KEY takes it."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def parse(text: str, where: str, todo: str = MAKE_ONE) -> bytes:
    """Return the 32 bytes of a key in base64, the usual or the one of URLs.

    Raises StartupError, which does not show it; `where` is what it was read from, `todo` what
    then to do.
    """
    wanted = f"{where}: expected {KEY_BYTES} bytes in base64, which are 44 characters"
    encoded = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise StartupError(f"{wanted}; this is not base64. {todo}.") from None
    if len(key) != KEY_BYTES:
        raise StartupError(f"{wanted}; these are {len(key)} bytes. {todo}.")
    return key


def here(setting: str, folder: Path) -> bytes | None:
    """Return the key of the setting, else that of the file; None where there is neither.

    Raises StartupError for one that cannot be read.
    """
    if setting:
        return parse(setting, "secret.key (SECRET_KEY)")
    path = folder / FILE
    try:
        return parse(path.read_text(), str(path), PUT_BACK)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is no text"
        raise StartupError(f"{path} cannot be read: {reason}") from None


def make(folder: Path) -> bytes:
    """Write a new key into the data directory, for its owner alone; one that is there stays.

    It is on the disk, whole, before this returns. Raises StartupError.
    """
    path = folder / FILE
    draft = folder / f".{FILE}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(new() + "\n")
            file.flush()
            os.fsync(file.fileno())
        _link(draft, path)
    except OSError as e:
        raise StartupError(
            f"{path} cannot be written: {e.strerror}; set SECRET_KEY instead, {MAKE_ONE}"
        ) from None
    return parse(path.read_text(), str(path))


def _link(draft: Path, path: Path) -> None:
    """Give the file its name, unless it is taken, and see that the name lasts."""
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was quicker: its key it is
    except OSError:  # a file system without links
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
