"""Freed heap stays with the process that asked for it."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys
from sth_protocol.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
if kept is False:
    sys.exit(77)
def faults():
    for _ in range(500):
        chunks = [bytes(100_000) for _ in range(20)]
        del chunks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], check=False, capture_output=True, text=True
    )
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_freed_memory_is_not_asked_for_again() -> None:
    # Counts of page faults, which do not depend on how fast or busy the machine is.
    assert faults("keep") * 10 < faults("leave")
