"""Which names hold secrets, and what stands in their place."""

import re

MASK = "********"
SECRET = re.compile(r"^(proxy-)?authorization$|^(set-)?cookie$|token|secret|key", re.IGNORECASE)
USERINFO = re.compile(r"(?<=://)[^\s/@]*@")
PARAMETER = re.compile(r"(?i)([?&][^=&\s]*(?:token|secret|key|password|sig)[^=&\s]*=)[^&\s'\"]+")


def is_secret(name: str) -> bool:
    """Say whether a header of this name is masked wherever it is shown."""
    return SECRET.search(name) is not None


def mask(text: str) -> str:
    """Return text without user information and secret parameters in its URLs."""
    return PARAMETER.sub(rf"\1{MASK}", USERINFO.sub(f"{MASK}@", text))
