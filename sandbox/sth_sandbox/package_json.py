"""The rules of a package's package.json, which are those of the original."""

import json
import posixpath
import re
from collections.abc import Set
from typing import Any, NoReturn

from sth_sandbox.errors import SandboxError, bad_package

NAME = "package.json"
MAX_BYTES = 256 * 1024

# What Node.js tries when `main` names no file.
_NODE_SUFFIXES = (".js", ".json", ".cjs", ".mjs", "/index.js")
_PORT = re.compile(r"[0-9]{3,5}/(tcp|udp)")
_OPTIONAL_TEXT = ("name", "version", "description", "author")
# What is passed on. Other fields are npm's business, or nobody's.
_KEPT = (*_OPTIONAL_TEXT, "main", "engines", "scramjet", "keywords", "repository", "args")
_HINT = 'the least that works: {"main": "index.js"}, or with "engines": {"python3": ">=3.11"}'


def parse(data: bytes, files: Set[str]) -> dict[str, Any]:
    """Its checked fields. `files`: the paths of all files of the package."""
    try:
        package = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"is not JSON: {error}") from error
    if not isinstance(package, dict):
        raise _wrong("is not a JSON object")
    for name in _OPTIONAL_TEXT:
        if not isinstance(package.get(name, ""), str):
            raise _wrong(f"has {name!r} that is not a string")
    _check_engines(package.get("engines", {}))
    _check_scramjet(package.get("scramjet", {}))
    keywords = package.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(each, str) for each in keywords):
        raise _wrong("has 'keywords' that are not a list of strings")
    if not isinstance(package.get("args", []), list):
        raise _wrong("has 'args' that are not a list")
    checked = {name: package[name] for name in _KEPT if name in package}
    checked["main"] = _checked_main(package, files)
    return checked


def language(package: dict[str, Any]) -> str:
    """python if its engine is python3, else node."""
    return "python" if "python3" in package.get("engines", {}) else "node"


def _checked_main(package: dict[str, Any], files: Set[str]) -> str:
    main = package.get("main")
    if not isinstance(main, str) or not main:
        raise _wrong("has no 'main', the file to run")
    path = posixpath.normpath(main)
    if path.startswith("/") or path.split("/")[0] == "..":
        raise _wrong(f"has a 'main' outside the package: {main[:200]!r}")
    suffixes = _NODE_SUFFIXES if language(package) == "node" else ()
    if path not in files and not any(path + suffix in files for suffix in suffixes):
        raise _wrong(f"has a 'main' that is not in the package: {main[:200]!r}")
    if path.endswith(".py") and language(package) == "node":
        # Node.js would call it a SyntaxError, which helps nobody.
        raise _wrong(f"has a Python program as 'main', {main[:200]!r}, and no engine python3")
    return main


def _check_engines(engines: object) -> None:
    if not isinstance(engines, dict) or not all(isinstance(v, str) for v in engines.values()):
        raise _wrong("has 'engines' that are not an object of strings")
    if len(engines) > 1:
        raise _wrong(f"has more than one engine: {', '.join(engines)[:200]}")


def _check_scramjet(scramjet: object) -> None:
    config = scramjet.get("config", {}) if isinstance(scramjet, dict) else None
    ports = config.get("ports", []) if isinstance(config, dict) else None
    if not isinstance(ports, list):
        raise _wrong("has 'scramjet' that is not {config: {ports: [...]}}")
    for port in ports:
        if not isinstance(port, str) or not _PORT.fullmatch(port):
            raise _wrong(f"has a port that is not like '7006/tcp': {str(port)[:80]!r}")


def _wrong(what: str) -> SandboxError:
    return bad_package(f"package.json {what}", hint=_HINT)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
