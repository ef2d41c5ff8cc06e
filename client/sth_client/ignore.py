"""What `.siignore` says to leave out of a package. Pure: patterns and paths in, a decision out.

The rules are those of gitignore that matter here: `#` comments; `!` takes back; a trailing slash
means directories only; a slash elsewhere ties the pattern to the top; `*`, `?` and `[...]` stay
within one name, `**` crosses them; the last pattern that matches decides; nothing inside a
directory that is left out can be taken back.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sth_protocol.errors import BadPackage

FILE_NAME = ".siignore"
# A checkout's history and caches that a machine makes anew; `!` takes them back.
BUILT_IN = (".git/", "__pycache__/", FILE_NAME)


@dataclass(frozen=True, slots=True)
class Rule:
    pattern: re.Pattern[str]
    leaves_out: bool
    directories_only: bool


def parse_rules(lines: Iterable[str]) -> tuple[Rule, ...]:
    """The built-in rules, then those of `lines`; BadPackage names a line that is no pattern."""
    rules = [_parse_rule(line) for line in BUILT_IN]
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n").rstrip(" ")
        if text and not text.startswith("#"):
            try:
                rules.append(_parse_rule(text))
            except re.error as error:
                raise BadPackage(f"{FILE_NAME}, line {number}: '{text}': {error}") from None
    return tuple(rules)


def leaves_out(rules: Iterable[Rule], path: str, *, is_directory: bool) -> bool:
    """Whether the entry at `path` (relative, with slashes) stays out of the package."""
    decision = False
    for rule in rules:
        if (is_directory or not rule.directories_only) and rule.pattern.fullmatch(path):
            decision = rule.leaves_out
    return decision


def _parse_rule(text: str) -> Rule:
    takes_back = text.startswith("!")
    body = text[1:] if takes_back else text
    if body.startswith(("\\#", "\\!")):
        body = body[1:]
    directories_only = body.endswith("/")
    body = body.rstrip("/")
    anchored = "/" in body
    expression = _translate(body.lstrip("/"))
    if not anchored:
        expression = rf"(?:.*/)?{expression}"
    return Rule(re.compile(expression, re.DOTALL), not takes_back, directories_only)


def _translate(pattern: str) -> str:
    """A regular expression for one pattern."""
    expression = ""
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/") and _begins_name(pattern, position):
            expression, position = expression + r"(?:.*/)?", position + 3
        elif rest == "**" and _begins_name(pattern, position):
            expression, position = expression + r".*", position + 2
        elif rest[0] == "*":
            expression, position = expression + r"[^/]*", position + 1
        elif rest[0] == "?":
            expression, position = expression + r"[^/]", position + 1
        elif match := re.match(r"\[([!^]?)(\]?[^\]/]*)\]", rest):
            inner = match[2].replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
            expression += f"(?!/)[{'^' if match[1] else ''}{inner}]"
            position += match.end()
        elif rest[0] == "\\" and len(rest) > 1:
            expression, position = expression + re.escape(rest[1]), position + 2
        else:
            expression, position = expression + re.escape(rest[0]), position + 1
    return expression


def _begins_name(pattern: str, position: int) -> bool:
    return position == 0 or pattern[position - 1] == "/"
