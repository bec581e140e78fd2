"""What a request's body says, read strictly: the framework takes "1" for 1."""

from typing import TypeVar

import msgspec

from scheduler.errors import InvalidRequest, ValidationFailed

T = TypeVar("T")


def read(body: bytes | str, of: type[T]) -> T:
    """Return a body as a struct; an empty one names nothing.

    Raises ValidationFailed with the field that is wrong, and InvalidRequest for what is no JSON.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=of)
    except msgspec.ValidationError as e:
        message, _, path = str(e).partition(" - at `")
        raise ValidationFailed.of(path.strip("`$.") or "body", message) from None
    except msgspec.DecodeError as e:
        raise InvalidRequest(f"the body is not valid JSON: {e}") from None
