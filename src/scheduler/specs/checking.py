"""Whether a request fits its operation, by openapi-core. Runs in the child process."""

from typing import Any

from scheduler.specs.messages import Request


class Checker:
    """Checks requests against one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Take a document that is valid, its keys texts, its references local."""
        self._document = document

    def check(self, endpoint: str, request: Request) -> str | None:
        """Return what is wrong with a request, None where nothing is."""
        raise NotImplementedError(endpoint, request)
