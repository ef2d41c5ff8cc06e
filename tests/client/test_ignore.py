"""The rules of .siignore."""

import pytest

from sth_client.ignore import leaves_out, parse_rules
from sth_protocol.errors import BadPackage


def left_out(lines: str, path: str, *, directory: bool = False) -> bool:
    return leaves_out(parse_rules(lines.splitlines()), path, is_directory=directory)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("*.log", "a.log"),
        ("*.log", "deep/er/a.log"),
        ("a?c", "abc"),
        ("[ab].txt", "b.txt"),
        ("[!ab].txt", "c.txt"),
        ("/top", "top"),
        ("dir/file", "dir/file"),
        ("**/cache", "cache"),
        ("**/cache", "a/b/cache"),
        ("a/**/z", "a/z"),
        ("a/**/z", "a/b/c/z"),
        ("logs/**", "logs/a/b"),
        (r"\#odd", "#odd"),
        (r"\!odd", "!odd"),
        (r"star\*", "star*"),
        ("trailing   ", "trailing"),
    ],
)
def test_rule_leaves_out_what_it_matches(rule: str, path: str) -> None:
    assert left_out(rule, path)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("*.log", "a.log.txt"),
        ("a*c", "a/c"),
        ("a?c", "a/c"),
        ("/top", "deep/top"),
        ("dir/file", "other/dir/file"),
        ("# comment", "# comment"),
        ("", "anything"),
        ("a[", "a"),
        ("dir/", "dir"),
    ],
)
def test_rule_keeps_what_it_does_not_match(rule: str, path: str) -> None:
    assert not left_out(rule, path)


def test_rule_with_a_slash_at_its_end_is_for_directories() -> None:
    assert left_out("build/", "deep/build", directory=True)
    assert not left_out("build/", "deep/build")


def test_last_rule_that_matches_decides() -> None:
    assert not left_out("*.log\n!keep.log", "keep.log")
    assert left_out("!keep.log\n*.log", "keep.log")


def test_built_in_rules_can_be_taken_back() -> None:
    assert left_out("", ".git", directory=True)
    assert left_out("", "a/__pycache__", directory=True)
    assert not left_out("!__pycache__/", "a/__pycache__", directory=True)


def test_rule_that_is_no_pattern_is_named() -> None:
    with pytest.raises(BadPackage, match=r"\.siignore, line 2"):
        parse_rules(["ok", "[z-a]"])
