"""The command line's profile for this broker, so that whoever starts it is logged in.

`$XDG_CONFIG_HOME/sth/config.toml`, table `[profile.local]`; everything else in the file stays as it
is."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from sth_broker.private_files import write_private

PROFILE = "local"
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)


def config_path(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "sth" / "config.toml"


def write_profile(path: Path, *, url: str, space: str, token_file: Path) -> str:
    """Put the profile into the file, which is made if there is none. ValueError if the file is not
    TOML: then it is left alone. The token file of another broker that the profile had, or ""."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = with_profile(before, url=url, space=space, token_file=str(token_file))
    if after != before:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, after.encode())
    had = _token_file(before)
    return had if had != str(token_file) else ""


def _token_file(text: str) -> str:
    found: object = tomllib.loads(text)
    for key in ("profile", PROFILE, "token_file"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def with_profile(text: str, *, url: str, space: str, token_file: str) -> str:
    """The text of the file with this profile in place of the one it had, and as the current one if
    none is. ValueError if it is not TOML, or would be none."""
    if "current" not in tomllib.loads(text):
        text = f"current = {_quoted(PROFILE)}\n{text}"
    table = "\n".join(
        [
            f"[profile.{PROFILE}]",
            f"url = {_quoted(url)}",
            f"space = {_quoted(space)}",
            f"token_file = {_quoted(token_file)}",
        ]
    )
    changed = _with_table(text, table)
    tomllib.loads(changed)
    return changed


def _with_table(text: str, table: str) -> str:
    header = re.search(
        rf"^[ \t]*\[[ \t]*profile[ \t]*\.[ \t]*{PROFILE}[ \t]*\]", text, re.MULTILINE
    )
    if header is None:
        return f"{text.rstrip()}\n\n{table}\n"
    following = _TABLE.search(text, header.end())
    rest = text[following.start() :] if following else ""
    return f"{text[: header.start()].rstrip()}\n\n{table}\n\n{rest}".strip() + "\n"


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, if it is left in Unicode.
    return json.dumps(text, ensure_ascii=False)
