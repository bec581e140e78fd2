"""The child process that looks whether something is a document at all: `python -m` runs it."""

from scheduler.documents import document
from scheduler.documents.child import work
from scheduler.documents.messages import Answer, Ask, Fine, Read

MEMORY_BYTES = 1 << 30


def answer(ask: Ask) -> Answer:
    """Read a document. Raises Wrong."""
    if not isinstance(ask, Read):
        raise TypeError(ask)
    document.read(ask.source, ask.limits)
    return Fine()


if __name__ == "__main__":
    work(answer, MEMORY_BYTES)
