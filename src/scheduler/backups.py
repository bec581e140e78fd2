"""A backup file: a zip of the database as pg_dump says it, and a manifest that tells what it is.

    scheduler.dump  pg_dump's custom format; any pg_restore of that Postgres or a newer one reads it
    secret.key      only where it was asked for
    manifest.json   last: a file that was cut has none

Written in one go, to a pipe as well; read only where all of its sums are right.
"""

import fcntl
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from scheduler.errors import StartupError
from scheduler.pgcluster import sync

FORMAT = 1
DUMP, KEY, MANIFEST = "scheduler.dump", "secret.key", "manifest.json"
PIECE = 1 << 20
MANIFEST_MOST = 1 << 20
KEY_MOST = 1 << 16

BROKEN = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError)
"""What zipfile says of a file that is none, or of an entry that is missing, cut or encrypted."""

Moved = Callable[[int], None]
"""Told of each piece how many bytes it has."""


class Part(msgspec.Struct, frozen=True):
    """The content of one entry."""

    bytes: int
    sha256: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a database says of itself."""

    scheduler: str
    """The version that made the backup."""
    revision: str | None
    """Of the schema."""
    postgres: str
    """The major version."""
    database_bytes: int
    """What it takes on the disk."""
    installation: str | None
    tzdata: str | None
    secret_fingerprint: str | None
    """Of the key that opens its secrets."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is."""

    format: int
    created_at: str
    facts: Facts
    dump: Part
    key: Part | None


class _Format(msgspec.Struct):
    format: int


class _Pipe:
    """A file that is only written on: zipfile goes back where it can, and `>>` would append."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Leave the file open: it is the caller's."""


def write(
    file: IO[bytes],
    facts: Facts,
    created_at: str,
    dump: Iterable[bytes],
    key: bytes | None,
    moved: Moved = lambda _: None,
) -> Manifest:
    """Write a backup; return its manifest."""
    with zipfile.ZipFile(_Pipe(file), "w") as archive:
        part = _add(archive, DUMP, dump, moved)
        key_part = None if key is None else _add(archive, KEY, [key], moved)
        manifest = Manifest(
            format=FORMAT, created_at=created_at, facts=facts, dump=part, key=key_part
        )
        archive.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    file.flush()
    return manifest


def _add(archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes], moved: Moved) -> Part:
    size, digest = 0, hashlib.sha256()
    with archive.open(name, "w", force_zip64=True) as entry:
        for piece in pieces:
            entry.write(piece)
            digest.update(piece)
            size += len(piece)
            moved(len(piece))
    return Part(size, digest.hexdigest())


@contextmanager
def whole(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that gets its name when all of it is on the disk; for the owner alone.

    Raises StartupError where it is there already and must not be replaced, or cannot be written.
    """
    if path.exists() and not (force and path.is_file()):
        todo = "choose another name" if force else "choose another name, or add --force"
        raise StartupError(f"{path} is there already: {todo}.")
    draft = path.with_name(f".{path.name}.part")  # what a killed one left is written over
    try:
        with open(draft, "ab", opener=_private) as file:
            _hold(file, path)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                draft.replace(path)
                sync(path.parent)
            finally:
                with suppress(OSError):
                    draft.unlink()
    except OSError as e:
        raise StartupError(f"{path} cannot be written: {e.strerror or e}.") from e


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, stat.S_IRUSR | stat.S_IWUSR)


def _hold(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"{path} is being written by another backup: wait for its end."
        ) from None
    os.fchmod(file.fileno(), stat.S_IRUSR | stat.S_IWUSR)
    file.truncate(0)


class Backup:
    """A backup that was read and found whole."""

    def __init__(self, path: Path, manifest: Manifest, key: bytes | None) -> None:
        self.path = path
        self.manifest = manifest
        self.key = key

    def dump(self, moved: Moved = lambda _: None) -> Iterator[bytes]:
        """Yield what pg_dump said. Raises StartupError where the file has changed since."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(DUMP) as entry:
                while piece := entry.read(PIECE):
                    yield piece
                    moved(len(piece))
        except BROKEN as e:
            raise StartupError(f"{self.path} has changed meanwhile: {e}.") from None


def read(path: Path, moved: Moved = lambda _: None) -> Backup:
    """Read a backup, and check all of its sums. Raises StartupError that says what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(path, archive)
            key = None
            if manifest.key is not None:
                key = _small(archive, KEY, KEY_MOST)
                _compare(path, KEY, manifest.key, _part([key]))
            with archive.open(DUMP) as entry:
                pieces = iter(lambda: entry.read(PIECE), b"")
                _compare(path, DUMP, manifest.dump, _part(pieces, moved))
    except BROKEN as e:
        raise StartupError(f"{path} is no whole backup of a scheduler: {e}.") from None
    except OSError as e:
        raise StartupError(f"{path} cannot be read: {e.strerror or e}.") from None
    return Backup(path, manifest, key)


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    raw = _small(archive, MANIFEST, MANIFEST_MOST)
    try:
        found = msgspec.json.decode(raw, type=_Format).format
        if found != FORMAT:
            raise StartupError(
                f"{path} is a backup of format {found}, and this program reads format {FORMAT}:"
                " restore it with the version of the scheduler that made it, or a newer one."
            )
        return msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as e:
        raise StartupError(
            f"{path} is no whole backup of a scheduler: its manifest: {e}."
        ) from None


def _small(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as entry:
        raw = entry.read(most + 1)
    if len(raw) > most:
        raise zipfile.BadZipFile(f"{name} is too large")
    return raw


def _part(pieces: Iterable[bytes], moved: Moved = lambda _: None) -> Part:
    size, digest = 0, hashlib.sha256()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
        moved(len(piece))
    return Part(size, digest.hexdigest())


def _compare(path: Path, name: str, said: Part, found: Part) -> None:
    if said != found:
        raise StartupError(
            f"{path} is damaged: the checksum of {name} is not the one in its manifest; nothing was"
            " changed. Take another backup."
        )
