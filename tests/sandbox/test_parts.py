"""Small parts of the spawner by themselves: exits, the log, the loop, the host, errors."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sth_protocol.errors import tree
from sth_sandbox import errors, host
from sth_sandbox.bounded_log import BoundedLog
from sth_sandbox.errors import SandboxError
from sth_sandbox.instances import describe_exit, process_start_time
from sth_sandbox.loop import READ, Loop
from sth_sandbox.newborn import check_report

PACKAGE = Path(errors.__file__).parent


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("pass", {"code": 0, "signal": None, "reason": "ended with code 0"}),
        ("raise SystemExit(21)", {"code": 21, "signal": None, "reason": "ended with code 21"}),
        (
            "import os; os.kill(os.getpid(), 11)",
            {"code": None, "signal": 11, "reason": "killed by SIGSEGV"},
        ),
        (
            "import os; os.kill(os.getpid(), 40)",
            {"code": None, "signal": 40, "reason": "killed by signal 40"},
        ),
    ],
)
def test_exit_is_described(code: str, wanted: dict[str, object]) -> None:
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert describe_exit(status) == wanted
    assert describe_exit(status, "another reason")["reason"] == "another reason"


def test_process_start_time_tells_processes_apart() -> None:
    assert process_start_time(os.getpid()) > process_start_time(1)
    assert process_start_time(os.getpid()) == process_start_time(os.getpid())


def test_every_error_code_is_one_of_the_protocol() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py"))
    codes = set(re.findall(r'(?:SandboxError|_failure)\(\s*"([A-Z_]+)"', text))
    assert len(codes) > 8
    assert codes <= {error.code for error in tree()}


@pytest.mark.parametrize("data", [b"", b"ready", b"ready\nrubbish", b"{}", b"[]", b"\xff"])
def test_report_that_makes_no_sense_is_a_failure(data: bytes) -> None:
    with pytest.raises(Exception, match="ended while its sandbox was made"):
        check_report(data)


def test_log_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = BoundedLog(str(path), max_bytes=1000)
    for number in range(100):
        handler.emit(logging.makeLogRecord({"msg": f"{number:030}\ud800"}))
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["log", "log.1"]
    assert all(each.stat().st_size <= 1000 for each in tmp_path.iterdir())
    assert "99" in path.read_text(encoding="utf-8").splitlines()[-1]


def test_loop_goes_on_after_a_callback_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    reader, writer = os.pipe()
    seen: list[bytes] = []

    def receive() -> None:
        seen.append(os.read(reader, 1))
        if seen[-1] == b"x":
            raise ValueError("broken")
        loop.stop()

    loop.watch(reader, READ, receive)
    os.write(writer, b"xy")
    loop.run()
    assert seen == [b"x", b"y"]
    assert "broken" in caplog.text
    loop.unwatch(reader)
    loop.unwatch(reader)
    loop.close()
    os.close(reader)
    os.close(writer)


def test_loop_runs_timers_in_their_order_and_not_cancelled_ones() -> None:
    loop = Loop()
    seen: list[int] = []
    loop.call_later(0.02, loop.stop)
    loop.call_later(0.01, lambda: seen.append(2))
    loop.call_later(0, lambda: seen.append(1))
    loop.call_later(0.005, lambda: seen.append(3)).cancel()
    loop.run()
    loop.close()
    assert seen == [1, 2]


def test_loop_receives_signals() -> None:
    """In a process of its own: blocking signals is not undone."""
    code = """
import os, signal
from sth_sandbox.loop import Loop
loop = Loop()
seen = []
loop.on_signals({signal.SIGTERM: loop.stop, signal.SIGHUP: lambda: seen.append("hup")})
os.kill(os.getpid(), signal.SIGHUP)
loop.call_later(0.01, lambda: os.kill(os.getpid(), signal.SIGTERM))
loop.run()
loop.close()
assert seen == ["hup"], seen
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_host_finds_real_interpreters(tmp_path: Path) -> None:
    found = host.look_at_host()
    assert Path(found.python).is_file()
    assert "/usr" in found.binds
    assert not any(
        host.is_below(path, other) for path in found.binds for other in found.binds if path != other
    )
    script = tmp_path / "node"
    script.write_text("#!/bin/sh\necho /usr/bin/env\n", encoding="utf-8")
    script.chmod(0o755)
    assert host.find_node(str(script)) == os.path.realpath("/usr/bin/env")
    script.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert host.find_node(str(script)) == ""


def test_error_on_the_wire() -> None:
    error = errors.bad_package("broken", hint="mend it")
    assert isinstance(error, SandboxError)
    assert error.to_wire() == {"code": "BAD_PACKAGE", "message": "broken", "hint": "mend it"}
