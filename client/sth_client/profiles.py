"""Changes to the file of profiles. Edited as text, so that comments and unknown keys stay."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from sth_client.private_file import write_private
from sth_client.settings import Config, Setting
from sth_protocol.errors import BadName, BadRequest, Conflict

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CURRENT = re.compile(r"^[ \t]*current[ \t]*=.*$", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)


def use(config: Config, name: str) -> None:
    """Make a profile the current one; NotFound if there is none of that name."""
    config.profile(Setting(name, "the command"))
    text = config.path.read_text("utf-8")
    table = _TABLE.search(text)
    # `current` belongs to the top: below the first table it would be that table's.
    head, tables = (text[: table.start()], text[table.start() :]) if table else (text, "")
    line = f'current = "{name}"'
    changed, count = _CURRENT.subn(line, head, count=1)
    _write(config.path, (changed if count else f"{line}\n{head}") + tables)


def add(config: Config, name: str, values: Mapping[str, str], *, token: str) -> None:
    """Add a profile, its token in a file beside; the first becomes the current one."""
    if not _NAME.fullmatch(name):
        raise BadName(f"'{name}' is not a profile's name", hint="use 1 to 64 of a-z A-Z 0-9 _ -")
    if name in config.profiles:
        raise Conflict(f"there is a profile {name} already", hint=f"edit {config.path}")
    if token:
        token_path = config.path.with_name(f"{name}.token")
        write_private(token_path, token + "\n")
        values = {**values, "token_file": token_path.name}
    text = config.path.read_text("utf-8") if config.path.exists() else f'current = "{name}"\n'
    # A JSON string is a TOML string, if it is left in Unicode.
    pairs = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    _write(config.path, "\n".join([text.rstrip(), "", f"[profile.{name}]", *pairs, ""]))


def _write(path: Path, text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"{path} would not be TOML any more: {error}") from None
    write_private(path, text)
