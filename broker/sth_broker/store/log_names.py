"""The rule for names of logs, which every engine holds: they may become names of directories."""

import re

from sth_protocol.errors import BadName

_LOG_NAME = re.compile(r"[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]{0,239}")


def check_log_name(name: str) -> str:
    """The name itself; BadName if it breaks the rule."""
    if not _LOG_NAME.fullmatch(name):
        raise BadName(f"'{name[:80]}' is not the name of a log")
    return name
