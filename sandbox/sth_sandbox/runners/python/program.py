"""The author's program: found, loaded, and asked what it declares."""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

from sth.declaration import Declaration, declaration_of
from sth_sandbox.runners.frames import TEXT


class BadEntryPoint(Exception):
    """The package has no program where it says, or not one that can be called."""


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program. `requires`, `provides`: Topics and content types, as the author said."""

    function: Callable[..., Any]
    requires: dict[str, Any] = field(default_factory=dict)
    provides: dict[str, Any] = field(default_factory=dict)

    def with_result(self, result: object) -> "Program":
        """The same with what the returned value says of itself, which goes before."""
        requires = _described(result, "requires") or self.requires
        provides = _described(result, "provides") or self.provides
        content_type = getattr(result, "content_type", None)
        if isinstance(content_type, str) and content_type:
            provides = {**provides, "contentType": content_type}
        return Program(self.function, requires, provides)

    @property
    def content_type(self) -> str:
        """Of the output."""
        return self.provides.get("contentType") or TEXT


def load(package: str, main: str) -> Program:
    """Loads the module `main` of `package`, with the paths that a program expects.

    BadEntryPoint, or whatever the module raises while it is executed.
    """
    file = _main_file(package, main)
    directory = os.path.dirname(file)
    sys.argv = [file]
    sys.dont_write_bytecode = True  # a package stays as it was uploaded
    first = [directory, package, os.path.join(package, "__pypackages__")]
    sys.path[:] = list(dict.fromkeys(first)) + [each for each in sys.path if each not in first]
    os.chdir(directory)
    return _resolve(_execute(file), main)


def _main_file(package: str, main: object) -> str:
    if not isinstance(main, str) or not main:
        raise BadEntryPoint("package.json has no main")
    root = os.path.realpath(package)
    for name in (main, f"{main}.py"):
        file = os.path.realpath(os.path.join(root, name))
        if not f"{file}/".startswith(f"{root}/"):
            raise BadEntryPoint(f"main is {main!r}, which is outside of the package")
        if os.path.isfile(file):
            return file
    raise BadEntryPoint(f"main is {main!r}, and the package has no such file")


def _execute(file: str) -> ModuleType:
    # Its own name lets other modules of the package import it, unless that would hide a module
    # that is loaded already.
    stem, suffix = os.path.splitext(os.path.basename(file))
    name = stem if stem.isidentifier() and stem not in sys.modules else "sequence"
    if suffix == ".py":
        return _execute_source(name, file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BadEntryPoint(f"main is {stem + suffix!r}, which is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _execute_source(name: str, file: str) -> ModuleType:
    """What importlib does, with the same attributes but without its forty functions, each of which
    would cost every Instance memory."""
    module = ModuleType(name)
    loader = SourceFileLoader(name, file)
    spec = ModuleSpec(name, loader, origin=file)
    spec.has_location = True
    module.__spec__ = spec
    module.__loader__ = loader
    module.__file__ = file
    module.__package__ = ""
    sys.modules[name] = module
    with open(file, "rb") as source:
        code = compile(source.read(), file, "exec", dont_inherit=True)
    exec(code, vars(module))
    return module


def _resolve(module: ModuleType, main: str) -> Program:
    marked = {
        name: value
        for name, value in vars(module).items()
        if declaration_of(value) is not None and value.__module__ == module.__name__
    }
    if len(set(map(id, marked.values()))) > 1:
        raise BadEntryPoint(f"{main} marks {', '.join(marked)} with @sequence; mark one")
    function = next(iter(marked.values()), None) or getattr(module, "run", None)
    if function is None:
        raise BadEntryPoint(f"{main} has neither a function named run nor one marked @sequence")
    if not callable(function):
        raise BadEntryPoint(f"run in {main} is {type(function).__name__}, not a function")
    declared = declaration_of(function) or Declaration()
    return Program(
        function,
        _declared(
            _described(module, "requires") or _described(function, "requires"), declared.input
        ),
        _declared(
            _described(module, "provides") or _described(function, "provides"), declared.output
        ),
    )


def _described(owner: object, name: str) -> dict[str, Any]:
    value = getattr(owner, name, None)
    return dict(value) if isinstance(value, dict) else {}


def _declared(described: dict[str, Any], content_type: str) -> dict[str, Any]:
    return {**described, "contentType": content_type} if content_type else described
