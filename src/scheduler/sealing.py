"""Sealing: what is secret is stored encrypted (AES-256-GCM), and opened only where it is used.

A sealed text says so with its first character, which no header value can hold: nobody can send
what would be taken for one, and a version that knows of no sealing refuses to send it.
"""

import base64
import binascii
import hashlib
import os
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARK = "\x01"
PREFIX = f"{MARK}sealed 1 "
"""With the version of what follows: base64 of nonce and ciphertext."""
LOST = f"{MARK}lost"
"""In place of a value whose key is lost."""
NONCE_BYTES = 12
KEY_BYTES = 32
OVERHEAD_BYTES = NONCE_BYTES + 16


class SealError(ValueError):
    """A sealed value cannot be opened."""


def fingerprint(key: bytes) -> str:
    """Return what tells keys apart and says nothing about them."""
    return hashlib.sha256(b"scheduler secret key\n" + key).hexdigest()[:32]


def short(of: str) -> str:
    """Return as much of a fingerprint as people compare."""
    return of[:8]


def is_sealed(value: str) -> bool:
    """Say whether a stored value is sealed, or was and is lost."""
    return value.startswith(MARK)


def is_sealed_bytes(value: bytes) -> bool:
    """Say whether stored bytes are sealed: 32 random ones do not begin so."""
    return value.startswith(PREFIX.encode())


def plain_size(value: str) -> int:
    """Return how many bytes a value takes where it is open."""
    if not value.startswith(PREFIX):
        return 0 if is_sealed(value) else len(value.encode())
    encoded = value[len(PREFIX) :]
    return len(encoded) // 4 * 3 - encoded.count("=") - OVERHEAD_BYTES


class Vault:
    """Seals and opens with one key; without one it seals nothing.

    A sealed value is bound to its service and to what it is: moved to another row it does not open.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self.sealing = True
        """False while replicas are there that could not open anything."""
        self.fingerprint: str | None = None
        self._cipher: AESGCM | None = None
        if key is not None:
            self.unlock(key)

    def unlock(self, key: bytes) -> None:
        """Take the key, 32 bytes."""
        self._cipher = AESGCM(key)
        self.fingerprint = fingerprint(key)

    @property
    def seals(self) -> bool:
        """Say whether what is written now is sealed."""
        return self.sealing and self._cipher is not None

    def seal(self, value: str, service_id: UUID, what: str) -> str:
        """Return a value as it is stored: sealed, where that is done now and it is not already."""
        if is_sealed(value) or self._cipher is None or not self.sealing:
            return value
        nonce = os.urandom(NONCE_BYTES)
        closed = nonce + self._cipher.encrypt(nonce, value.encode(), _bound(service_id, what))
        return PREFIX + base64.b64encode(closed).decode()

    def open(self, value: str, service_id: UUID, what: str) -> str:
        """Return a stored value as it was sent. Raises SealError with a sentence."""
        if not is_sealed(value):
            return value
        if value == LOST:
            raise SealError(f"{what} was lost with the key that it was sealed with; send it anew")
        if self._cipher is None:
            raise SealError(f"{what} is sealed, and there is no key here; set SECRET_KEY")
        try:
            closed = base64.b64decode(value.removeprefix(PREFIX), validate=True)
            nonce, closed = closed[:NONCE_BYTES], closed[NONCE_BYTES:]
            return self._cipher.decrypt(nonce, closed, _bound(service_id, what)).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise SealError(
                f"{what} cannot be opened: it was sealed for another service, or with another key, "
                "or someone changed it; send it anew"
            ) from None

    def seal_bytes(self, value: bytes, service_id: UUID, what: str) -> bytes:
        """Return bytes as they are stored."""
        if not self.seals or is_sealed_bytes(value):
            return value
        return self.seal(base64.b64encode(value).decode(), service_id, what).encode()

    def open_bytes(self, value: bytes, service_id: UUID, what: str) -> bytes:
        """Return stored bytes as they were. Raises SealError with a sentence."""
        if not is_sealed_bytes(value):
            return value
        return base64.b64decode(self.open(value.decode("ascii", "replace"), service_id, what))


def _bound(service_id: UUID, what: str) -> bytes:
    return service_id.bytes + what.encode()


def header(name: str) -> str:
    """Return what the value of a header is called, whatever the case of its name."""
    return f"the header {name.lower()}"


def variable(name: str) -> str:
    """Return what the value of a command's variable is called."""
    return f"the variable {name}"


SIGNING = "the signing secret"
