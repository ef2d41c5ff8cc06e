"""What `-` stands for: the last Sequence, Instance, Topic and Hub of each profile.

A convenience, so nothing fails because of it: a file that is broken or cannot be written is as if
there were none.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from sth_client.private_file import write_private

logger = logging.getLogger(__name__)


def state_path(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_STATE_HOME") or os.path.join(
        environ.get("HOME") or "~", ".local", "state"
    )
    return Path(home).expanduser() / "sth" / "last.json"


class LastUsed:
    """The names last used with one profile. `kind`: "sequence", "instance", "topic" or "hub"."""

    def __init__(self, path: Path, profile: str) -> None:
        self._path = path
        self._profile = profile

    def get(self, kind: str) -> str:
        """Empty if there is none."""
        value = self._read().get(self._profile, {}).get(kind)
        return value if isinstance(value, str) else ""

    def set(self, kind: str, value: str) -> None:
        everything = self._read()
        names = everything.get(self._profile, {})
        if names.get(kind) == value:
            return
        everything[self._profile] = {**names, kind: value}
        try:
            write_private(self._path, json.dumps(everything, indent=1) + "\n")
        except OSError as error:
            logger.debug("%s cannot be written: %s", self._path, error)

    def _read(self) -> dict[str, dict[str, object]]:
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError) as error:
            logger.debug("%s cannot be read: %s", self._path, error)
            return {}
        if not isinstance(content, dict):
            return {}
        return {name: each for name, each in content.items() if isinstance(each, dict)}
