"""What the server and a supervisor say to each other.

server      length, job as JSON; later perhaps CUT
supervisor  BEGUN; then length, result as JSON, output
"""

import json
import struct
from typing import Literal, NamedTuple

LENGTH = struct.Struct(">I")
CUT = b"T"
"""Said by the server: TERM, then KILL. Where it closes its end instead, all is killed at once."""

BEGUN = b"B"
"""Said by the supervisor before anything is started: without it, nothing was."""

Why = Literal["exited", "timeout", "output", "cut", "unstarted", "unfit"]


class Limits(NamedTuple):
    """What a run may use; times in seconds."""

    cpu_seconds: int
    memory_bytes: int
    processes: int
    file_bytes: int
    open_files: int
    output_bytes: int
    kill_seconds: float


class Rules(NamedTuple):
    """What holds for every run of a host."""

    directory: str
    """Where the private directories are."""
    first: int
    """The first slot; where a run has an id of its own, it is the slot's number."""
    slots: int
    drops: bool
    """The server is root, and runs get less rights."""
    uid: int | None
    """Whose: None for a user of each run's own, where rights are dropped."""
    limits: Limits

    @property
    def alone(self) -> bool:
        """Say whether each run has a user of its own."""
        return self.drops and self.uid is None

    def encoded(self) -> str:
        """Return it as an argument of the host."""
        return json.dumps(self)


def rules(encoded: str) -> Rules:
    """Read `Rules.encoded`."""
    *before, limits = json.loads(encoded)
    return Rules._make([*before, Limits(*limits)])


class Job(NamedTuple):
    """One run."""

    command: str
    env: dict[str, str]
    """Beside the directory's variables, which it may replace."""
    timeout_s: float


def read_job(body: bytes) -> Job:
    """Read a job that was sent, without its length."""
    return Job(*json.loads(body))


class Result(NamedTuple):
    """How it ended; its output follows."""

    why: Why
    code: int | None = None
    """The exit code, or 128 + the signal that killed the shell."""
    error: str | None = None
    """Why it could not be started."""
    truncated: bool = False
    size: int = 0
    """Bytes of output that follow."""


def read_result(body: bytes) -> Result:
    """Read a result that was sent, without its length."""
    return Result(*json.loads(body))


def framed(message: Job | Result) -> bytes:
    """Return a message as it is sent."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body
