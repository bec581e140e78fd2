"""The child process in which documents are compiled and reviewed: `python -m` runs it."""

from contextlib import suppress

import msgspec

from scheduler.documents import compiling, document, references, validating
from scheduler.documents.child import work
from scheduler.documents.messages import Answer, Ask, Compile, Compiled, Review
from scheduler.documents.review import reviewed

MEMORY_BYTES = 1 << 30


def answer(ask: Ask) -> Answer:
    """Compile or review a document. Raises Wrong."""
    if isinstance(ask, Compile):
        return compiled(ask)
    if isinstance(ask, Review):
        return reviewed(ask)
    raise TypeError(ask)


def compiled(ask: Compile) -> Compiled:
    """Return a document as JSON, and its client. Raises Wrong."""
    found = references.settled(document.read(ask.source, ask.limits))
    compiling.count(found, ask.limits)
    try:
        validating.validate(found)
    except validating.Tripped:
        with suppress(LookupError, TypeError, AttributeError):
            compiling.client(found, ask.limits)  # which may know the place
        raise
    client = compiling.client(found, ask.limits)
    operations = [msgspec.json.encode(operation) for operation in client.operations]
    outline = msgspec.structs.replace(client, operations=[])
    return Compiled(msgspec.json.encode(found), outline, operations)


if __name__ == "__main__":
    work(answer, MEMORY_BYTES)
