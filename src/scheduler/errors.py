"""The one shape in which this program says no.

    UserError                   the caller is wrong, or must wait; answered with `status`
    ├── InvalidRequest          400  the body is not JSON at all
    ├── ValidationFailed        400  a field is wrong; `details` names each
    ├── Unauthorized            401
    │   └── BearerWanted        401
    ├── Forbidden               403
    ├── NotFound                404
    ├── MethodNotAllowed        405
    ├── Conflict                409
    ├── PayloadTooLarge         413
    ├── TooManyRequests         429  with `retry_after`
    └── Unavailable             503  with `retry_after`: the database is away, or in the way
    StartupError                the program cannot start; one sentence for the operator

A class's docstring is its default message.
"""

from typing import ClassVar

import msgspec

DETAILS_MOST = 100
"""So many wrong fields are named; nobody reads more."""


class Detail(msgspec.Struct, frozen=True):
    """What is wrong with one field, and what would be right."""

    field: str
    message: str


class UserError(Exception):
    """The request cannot be served."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid_request"

    def __init__(
        self,
        message: str | None = None,
        *,
        details: list[Detail] | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "")
        self.details = details or []
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidRequest(UserError):
    """The body is not valid JSON."""


class ValidationFailed(UserError):
    """The request has a wrong value."""

    code = "validation_failed"

    @classmethod
    def of(cls, field: str, message: str) -> "ValidationFailed":
        """One wrong field."""
        return cls(f"{field}: {message}", details=[Detail(field, message)])

    @classmethod
    def all(cls, details: list[Detail]) -> "ValidationFailed":
        """Every wrong field at once, a hundred at most; the message is the first of them."""
        first = f"{details[0].field}: {details[0].message}"
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        return cls(first + more, details=details[:DETAILS_MOST])


class Unauthorized(UserError):
    """Send the headers service_id and token, or HTTP Basic with the same pair."""

    status = 401
    code = "unauthorized"
    challenge: ClassVar[str] = 'Basic realm="scheduler"'


class BearerWanted(Unauthorized):
    """Send Authorization: Bearer with the right token."""

    challenge = "Bearer"


class Forbidden(UserError):
    """This is not allowed."""

    status = 403
    code = "forbidden"


class NotFound(UserError):
    """There is no such thing here."""

    status = 404
    code = "not_found"


class MethodNotAllowed(UserError):
    """This address does not take this method."""

    status = 405
    code = "method_not_allowed"


class Conflict(UserError):
    """This is in conflict with what is there."""

    status = 409
    code = "conflict"


class PayloadTooLarge(UserError):
    """The body is too large."""

    status = 413
    code = "payload_too_large"


class TooManyRequests(UserError):
    """Too many requests; try again later."""

    status = 429
    code = "too_many_requests"


class Unavailable(UserError):
    """The database cannot be reached; try again in a moment."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str | None = None, *, retry_after: int = 2) -> None:
        super().__init__(message, retry_after=retry_after)


class StartupError(Exception):
    """The program cannot start."""
