"""The join token: everything a machine needs to find, check and convince its broker.

`sthj1_` + base64url(msgpack [version, addresses, space, pins, id, secret, expiry] + crc32), all of
the alphabet A-Za-z0-9_- so that a double click takes it whole. The pins are SHA-256 digests of the
SubjectPublicKeyInfo of the broker's CA: two during a change of CA. The expiry is a hint for a good
message; the broker decides.
"""

import base64
import binascii
import zlib
from dataclasses import dataclass, field
from typing import Any

from sth_protocol import codec
from sth_protocol.errors import BadFrame, JoinTokenMalformed

PREFIX = "sthj1_"
VERSION = 1
ID_BYTES = 6
SECRET_BYTES = 16
PIN_BYTES = 32
MAX_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`addresses`: host:port of the agents' port, best first; `expires`: seconds since 1970, 0 for
    never. The secret stays out of the representation, so that it cannot reach a log."""

    addresses: tuple[str, ...]
    space: str
    pins: tuple[bytes, ...]
    token_id: bytes
    secret: bytes = field(repr=False)
    expires: int = 0

    @property
    def public_id(self) -> str:
        """The id that lists and audits show."""
        return base64.urlsafe_b64encode(self.token_id).decode()


def format_token(token: JoinToken) -> str:
    """The text of a token."""
    body = codec.pack(
        [
            VERSION,
            list(token.addresses),
            token.space,
            list(token.pins),
            token.token_id,
            token.secret,
            token.expires,
        ]
    )
    checked = body + zlib.crc32(body).to_bytes(4, "big")
    return PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def parse_token(text: str) -> JoinToken:
    """The token in `text`; JoinTokenMalformed says what is wrong with it, without its secret."""
    text = text.strip()
    _refuse_foreign(text)
    body = _checked_body(text)
    try:
        fields = codec.unpack(body)
    except BadFrame as error:
        raise JoinTokenMalformed(f"not a join token: {error.message}") from None
    return _from_fields(fields)


def _refuse_foreign(text: str) -> None:
    if text.startswith("eyJ"):
        raise JoinTokenMalformed(
            "not a join token: this is an API token",
            hint="a join token starts with sthj1_; `sth token create join` makes one",
        )
    if not text.startswith(PREFIX) or len(text) > MAX_CHARACTERS:
        raise JoinTokenMalformed(
            "not a join token: it does not start with sthj1_"
            if len(text) <= MAX_CHARACTERS
            else "not a join token: too long",
            hint="copy the whole token, from sthj1_ on",
        )


def _checked_body(text: str) -> bytes:
    encoded = text[len(PREFIX) :]
    try:
        checked = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        checked = b""
    body, crc = checked[:-4], checked[-4:]
    if len(checked) <= 4 or zlib.crc32(body).to_bytes(4, "big") != crc:
        raise JoinTokenMalformed(
            f"the join token is damaged or truncated ({len(text)} characters were given)",
            hint="copy it again, whole",
        )
    return body


def _from_fields(fields: Any) -> JoinToken:
    match fields:
        case [
            int(version),
            [str(), *_] as addresses,
            str(space),
            [bytes(), *_] as pins,
            bytes(token_id),
            bytes(secret),
            int(expires),
        ] if version == VERSION:
            pass
        case [int(version), *_] if version != VERSION:
            raise JoinTokenMalformed(
                f"the join token is of version {version}, this agent reads {VERSION}",
                hint="upgrade the agent",
            )
        case _:
            raise JoinTokenMalformed("not a join token: its fields are not those of one")
    sound = (
        len(token_id) == ID_BYTES
        and len(secret) == SECRET_BYTES
        and all(isinstance(each, bytes) and len(each) == PIN_BYTES for each in pins)
        and all(isinstance(each, str) for each in addresses)
    )
    if not sound:
        raise JoinTokenMalformed("not a join token: its fields are not those of one")
    return JoinToken(tuple(addresses), space, tuple(pins), token_id, secret, expires)
