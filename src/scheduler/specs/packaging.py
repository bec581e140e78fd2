"""The child process in which one Python client package is written: `python -m` runs it.

It reads a document (JSON) from standard input, works in the current directory, and writes a zip to
standard output; or a sentence that says why there is none, and exits with REFUSED. It knows nothing
of ours, and the library that it asks is fenced in: whatever a document talks it into, nothing is
written elsewhere, nothing is started, and nothing is connected to.
"""

import ast
import ctypes
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_python_client.parser.errors import GeneratorError

REFUSED = 3
"""The exit code that goes with a sentence."""
MEMORY_BYTES = 1 << 30
FILE_BYTES = 32 << 20
"""Of one file that is written."""
PACKAGE_BYTES = 256 << 20
"""Of all of them."""
FILES_MOST = 100_000
SENTENCE_MOST = 500
NICE = 5
FILES = 1 << 16
PR_SET_PDEATHSIG = 1
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file: the same document is the same zip."""
LEFT_OUT = "LEFT_OUT.txt"
NOISE = re.compile(r"For further information visit \S+|<[\w.]+ object at 0x[0-9a-f]+>")
"""In what the generator says."""
TYPES = re.compile(rb"^from (\.+)types import ([\w, ]+)$", re.MULTILINE)
JOINED = re.compile(rb"^(\s+if \w+ != -?[\d.]+)and", re.MULTILINE)
FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system",
             "os.symlink", "os.link", "os.chmod", "os.chown", "os.kill", "os.putenv", "ctypes.",
             "os.truncate", "shutil.", "pty.", "signal.", "webbrowser.", "urllib.")  # fmt: skip
"""Beginnings of what the library has no need to do, by the names of Python's audit events."""


class Unwritten(Exception):
    """There is no package; the sentence says why."""


class Fence:
    """What Python reports of itself (PEP 578), and what of it is let through."""

    def __init__(self, here: Path) -> None:
        self._inside = f"{here}{os.sep}"
        self._last: str | None = None
        self._bytes = self._files = 0
        self.up = True

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Let an event through. Raises Unwritten."""
        if not self.up:
            return
        if event == "open":
            if _writes(*args[1:3]):
                self._write(args[0])
        elif event in {"os.mkdir", "os.remove", "os.rmdir", "os.rename"}:
            for path in args[: 2 if event == "os.rename" else 1]:
                self._within(path)
        elif event.startswith(FORBIDDEN) and event != "shutil.rmtree":
            raise Unwritten(f"the document made the generator ask for {event}")

    def _within(self, path: Any) -> str:
        found = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else ""
        if not f"{found}{os.sep}".startswith(self._inside):
            raise Unwritten("the document made the generator write outside of the package")
        return found

    def _write(self, path: Any) -> None:
        """Count what came before it: each file is written once, and whole."""
        inside = self._within(path)
        if self._last is not None:
            with suppress(OSError):
                self._bytes += os.lstat(self._last).st_size
        self._files, self._last = self._files + 1, inside
        if self._bytes > PACKAGE_BYTES or self._files > FILES_MOST:
            raise Unwritten("the package would be too large; send a document that names less")


def _writes(mode: str | None, flags: int) -> bool:
    opened = mode is not None and not set(mode).isdisjoint("wax+")
    return opened or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def zipped(document: bytes, name: str, here: Path) -> bytes:
    """Return the package of a document, written in `here` and zipped. Raises Unwritten."""
    source, project = here / "openapi.json", here / name
    source.write_text(json.dumps({"paths": {}, **json.loads(document)}))
    config = Config.from_sources(
        config_file=ConfigFile(project_name_override=name, post_hooks=[]),
        meta_type=MetaType.PDM,  # no setup.py: nothing of it is run by whoever installs it
        document_source=source,
        file_encoding="utf-8",
        overwrite=True,
        output_path=project,
    )
    missing = generate(config=config)
    if not (project / "pyproject.toml").is_file():
        raise Unwritten(_told(missing, here) or "the generator wrote nothing")
    if missing:
        (project / LEFT_OUT).write_text("".join(f"{_line(each)}\n" for each in missing))
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(project):
            shown = path.relative_to(here).as_posix()
            body = _checked(shown, path.read_bytes())
            entry = zipfile.ZipInfo(shown, EPOCH)
            entry.external_attr, entry.create_system = 0o644 << 16, 3
            archive.writestr(entry, body, zipfile.ZIP_DEFLATED)
    return kept.getvalue()


def _files(project: Path) -> Iterator[Path]:
    """Yield the files of a package, sorted; links are none."""
    for path in sorted(project.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _checked(shown: str, body: bytes) -> bytes:
    """Return a file that is what its name says. Raises Unwritten."""
    try:
        if shown.endswith(".py"):
            return _mended(body)
        if shown.endswith(".toml"):
            tomllib.loads(body.decode())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        wrong = "the generator made a file of this document that cannot be read"
        raise Unwritten(f"{wrong}: {shown[:200]}") from None
    return body


def _mended(body: bytes) -> bytes:
    """Return a module with what the generator forgets: a space after a number, and one import."""
    body = JOINED.sub(rb"\1 and", body)
    names = {each.id for each in ast.walk(ast.parse(body)) if isinstance(each, ast.Name)}
    if "Unset" not in names:
        return body
    taken = TYPES.search(body)
    if taken and b"Unset" not in taken[2].replace(b",", b" ").split():
        return body[: taken.end()] + b", Unset" + body[taken.end() :]
    return body


def _told(errors: Sequence[GeneratorError], here: Path) -> str:
    """Return what the generator says, as one sentence, without where it worked."""
    said = "; ".join(map(_line, errors))
    return said.replace(str(here), "").replace(str(Path.cwd()), "")


def _line(error: GeneratorError) -> str:
    words = f"{error.header}: {error.detail}" if error.detail else error.header
    return " ".join(NOISE.sub(" ", str(words)).split())[:SENTENCE_MOST]


def main() -> None:
    """Write one package."""
    os.closerange(3, FILES)  # of the parent's none is meant for it
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the library prints
    here, name, seconds = Path.cwd(), sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        confine(seconds)
        document = sys.stdin.buffer.read()
        code, said = _done(document, name, here)
    finally:
        shutil.rmtree(here, ignore_errors=True)  # the parent does, unless it is no more
    with open(answer, "wb") as pipe:  # noqa: PTH123  (a descriptor)
        pipe.write(said)
    sys.exit(code)


def confine(seconds: int) -> None:
    """Bound what this process may use; it ends with its parent."""
    os.nice(NICE)
    with suppress(OSError, AttributeError):  # elsewhere than on Linux the end of the wait must do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for kind, most in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


def _done(document: bytes, name: str, here: Path) -> tuple[int, bytes]:
    fence = Fence(here.resolve())
    sys.addaudithook(fence)
    try:
        return 0, zipped(document, name, here)
    except Unwritten as e:
        why = str(e)
    except MemoryError:
        why = "the document takes too much memory; send one that names less"
    except RecursionError:
        why = "the document is nested too deep for the generator"
    except OSError as e:
        why = f"a file of the package cannot be written ({e.strerror}); shorten the names in it"
    except Exception as e:  # noqa: BLE001  # a document that its authors did not think of
        why = f"the generator cannot cope with this document ({type(e).__name__})"
    finally:
        fence.up = False
    return REFUSED, why[:SENTENCE_MOST].encode(errors="replace")


if __name__ == "__main__":
    main()
