"""Names and ids, and the rules they follow."""

import re

from sth_protocol.errors import BadName

# The original's rule for Topic names, less the backslash that its pattern admits by accident.
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9_+.-]{1,128}")
_HUB_OR_SPACE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# The original's clients insist on 36 characters and no more than that.
_INSTANCE_ID = re.compile(r"[a-zA-Z0-9_-]{36}")

DEFAULT_SPACE = "default"
LOCAL_HUB = "local"


def check_topic_name(name: str) -> str:
    """The name itself; BadName if it breaks the rule."""
    if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise BadName(
            f"'{name[:140]}' is not a Topic name",
            hint="use 1 to 128 of a-z A-Z 0-9 _ + . -",
        )
    return name


def check_hub_name(name: str) -> str:
    """A host-name label: 1 to 63 of a-z 0-9 and inner hyphens."""
    return _check_label(name, "Hub")


def check_space_name(name: str) -> str:
    """A host-name label, as a Hub's name."""
    return _check_label(name, "Space")


def _check_label(name: str, what: str) -> str:
    if not _HUB_OR_SPACE_NAME.fullmatch(name):
        raise BadName(
            f"'{name[:80]}' is not a {what} name",
            hint="use 1 to 63 of a-z 0-9 and -, not at the ends",
        )
    return name


def label_from(text: str) -> str:
    """A valid Hub name made of any text, such as a host name; 'hub' if nothing is left of it."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return label or "hub"


def check_sha256(text: str) -> str:
    """64 lower-case hexadecimal digits."""
    if not _SHA256.fullmatch(text):
        raise BadName("not a SHA-256 in hexadecimal")
    return text


def check_instance_id(text: str) -> str:
    """A UUID, or the caller's own id of 36 characters."""
    if not _INSTANCE_ID.fullmatch(text):
        raise BadName(
            "an Instance id has 36 characters of a-z A-Z 0-9 _ -", hint="leave it out to get a UUID"
        )
    return text


def is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None
