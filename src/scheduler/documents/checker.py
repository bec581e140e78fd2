"""The child process in which requests are checked: `python -m` runs it.

It remembers the documents that were asked for last, and is sent again what it has forgotten.
"""

from collections import OrderedDict

import msgspec

from scheduler.documents.checking import Checker
from scheduler.documents.child import work
from scheduler.documents.forms import form_of
from scheduler.documents.messages import (
    Answer,
    Ask,
    Check,
    Describe,
    Finding,
    Fine,
    Learn,
    Unknown,
)

MEMORY_BYTES = 512 << 20
REMEMBERED = 16 << 20
"""Bytes of JSON, of all documents that are remembered; as values they take many times that."""
WRONG_MOST = 4000
"""Characters of a finding: names and values in it are as long as the document has them."""


class Memory:
    """The documents that are known."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Checker, int]] = OrderedDict()
        self._size = 0

    def answer(self, ask: Ask) -> Answer:
        """Learn a document, check a request, or describe an operation."""
        match ask:
            case Check(document, endpoint, request, source, most_bytes):
                known = self._recalled(document, source)
                if known is None:
                    return Unknown()
                wrong = known.check(endpoint, request, most_bytes)
                return Finding(wrong[:WRONG_MOST]) if wrong else Fine()
            case Describe(document, endpoint, source):
                known = self._recalled(document, source)
                return Unknown() if known is None else form_of(known.document, endpoint)
            case Learn(name, document):
                try:
                    return self._learn(name, document)
                except MemoryError:
                    self._known.clear()
                    self._size = 0
                    return self._learn(name, document)
        raise TypeError(ask)

    def _recalled(self, document: str, source: bytes | None) -> Checker | None:
        if document not in self._known:
            if source is None:
                return None
            self._learn(document, source)
        self._known.move_to_end(document)
        return self._known[document][0]

    def _learn(self, name: str, document: bytes) -> Fine:
        self._size -= self._known.pop(name, (None, 0))[1]
        while self._known and self._size + len(document) > REMEMBERED:
            self._size -= self._known.popitem(last=False)[1][1]
        self._known[name] = (Checker(msgspec.json.decode(document)), len(document))
        self._size += len(document)
        return Fine()


if __name__ == "__main__":
    work(Memory().answer, MEMORY_BYTES)
