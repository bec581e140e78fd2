"""Lines that wait for the store, in memory and bounded."""

import json
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec


def as_json(value: Any) -> str:
    """Return a masked value as JSON; what JSON does not know as text."""
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return json.dumps(value, default=str)  # slower, and takes anything


class Kept(msgspec.Struct, gc=False):
    """A line for the store. `at` as in the line; `fields` the rest of it, in JSON."""

    at: str
    level: str
    service: str
    service_id: str | None
    trace_id: str | None
    message: str
    fields: str


APART = {"level", "@timestamp", "data", "X-TRACE-ID", "service", "message"}


class Buffer:
    """Lines that wait for the store; the oldest go where it is away for too long.

    Lines come from any thread, and nobody who logs waits for more than a lock.
    """

    LINES_MOST = 10_000
    BYTES_MOST = 16 << 20

    def __init__(self) -> None:
        self.on = False
        self.dropped = 0
        """Lines that went since `told` was asked last."""
        self._lines: deque[Kept] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line."""
        other = line.get("other_data")
        owner = other.get("service_id") if isinstance(other, dict) else None
        rest = {name: value for name, value in line.items() if name not in APART}
        fields = as_json(rest)
        message, trace = str(line["message"]), line.get("X-TRACE-ID")
        owner = owner or line.get("service_id")
        kept = Kept(
            str(line["@timestamp"]), str(line["level"]), str(line["service"]),
            None if owner is None else str(owner), None if trace is None else str(trace),
            message, fields,
        )  # fmt: skip
        with self._lock:
            self._lines.append(kept)
            self._bytes += _size(kept)
            while len(self._lines) > self.LINES_MOST or self._bytes > self.BYTES_MOST:
                self._drop()

    def _drop(self) -> None:
        self._bytes -= _size(self._lines.popleft())
        self.dropped += 1

    def take(self, most: int) -> list[Kept]:
        """Take out the oldest lines."""
        with self._lock:
            taken = [self._lines.popleft() for _ in range(min(most, len(self._lines)))]
            self._bytes -= sum(map(_size, taken))
        return taken

    def give_back(self, lines: list[Kept]) -> None:
        """Take lines that could not be stored in again, where there is still room."""
        with self._lock:
            self._lines.extendleft(reversed(lines))
            self._bytes += sum(map(_size, lines))
            while len(self._lines) > self.LINES_MOST or self._bytes > self.BYTES_MOST:
                self._drop()

    def lost(self, lines: int) -> None:
        """Note lines that no database takes."""
        with self._lock:
            self.dropped += lines

    def told(self) -> int:
        """Return how many lines went since this was asked last."""
        with self._lock:
            dropped, self.dropped = self.dropped, 0
        return dropped


def _size(line: Kept) -> int:
    return len(line.fields) + len(line.message) + 200
