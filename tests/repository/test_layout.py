"""The shape of the repository: sizes, layers, and what stands in two places but is one."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPONENTS = ("protocol", "sandbox", "agent", "broker", "client")
MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 80
# Where time itself is the matter.
MAY_SLEEP = {
    "tests/support/waiting.py": "the one place that polls",
    "tests/broker/test_gateway.py": "a thin link is one that trickles",
}


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).exists()]


def python_modules() -> list[Path]:
    return tracked(*(f"{component}/*.py" for component in COMPONENTS))


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("*.py", "*.cjs")
        if (lines := len(path.read_text().splitlines())) > MAX_MODULE_LINES
    }
    assert not long


def test_functions_fit_a_screen() -> None:
    long = []
    for path in python_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.name} has {lines}")
    assert not long


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_modules()
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def calls_of_sleep(path: Path) -> list[int]:
    """Lines that sleep for a time; sleep(0) only gives way to others."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            gives_way = [ast.unparse(each) for each in node.args] == ["0"]
            if ast.unparse(node.func) in ("time.sleep", "asyncio.sleep") and not gives_way:
                lines.append(node.lineno)
    return lines


def test_tests_wait_for_events_and_not_for_time() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("tests/*.py")
        if str(path.relative_to(ROOT)) not in MAY_SLEEP and (lines := calls_of_sleep(path))
    }
    assert not found


def test_tests_use_no_mocks() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in tracked("tests/*.py")
        if re.search(r"^\s*(from|import) (unittest\.)?mock\b", path.read_text(), re.MULTILINE)
    ]
    assert not found


FORBIDDEN_IN_THE_AGENT = ("aiohttp", "rich", "uvloop", "cryptography", "sqlite3", "multiprocessing")


def loaded_by(module: str) -> list[str]:
    script = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", ["sth_agent.cli", "sth_agent.link", "sth_sandbox.spawner"])
def test_agent_side_loads_no_heavy_library(module: str) -> None:
    assert not set(FORBIDDEN_IN_THE_AGENT) & set(loaded_by(module))


def test_sandbox_loads_only_itself_and_the_standard_library() -> None:
    ours = {name for name in loaded_by("sth_sandbox.spawner") if name.startswith("sth_")}
    assert not {name for name in ours if not name.startswith("sth_sandbox")}
    assert not {"msgpack", "websockets"} & set(loaded_by("sth_sandbox.spawner"))


def test_runner_constants_of_the_documentation_are_those_of_the_code() -> None:
    constants = json.loads((ROOT / "sandbox/sth_sandbox/runners/wire.json").read_text())
    row = re.search(r"type: (1 DATA[^|]*)", (ROOT / "docs/reference/wire.md").read_text())
    assert row is not None
    documented = {name: int(number) for number, name in re.findall(r"(\d+) ([A-Z]+)", row[1])}
    assert documented == constants["types"]


def test_frame_types_of_the_documentation_are_those_of_the_code() -> None:
    from sth_protocol.frames import FrameType

    text = (ROOT / "docs/reference/wire.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \|", text, re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {
        each.name: each.value for each in FrameType
    }


def test_nothing_names_a_machine_or_a_package_host() -> None:
    banned = re.compile(r"/work/main|/root/\.|pypi\.org|npmjs|deb\.debian")
    found = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.name != Path(__file__).name
        and path.suffix not in (".png",)
        and banned.search(path.read_text(errors="replace"))
    ]
    assert not found
