"""The limit is one of a whole process: it is raised in one of its own."""

import subprocess
import sys

SOURCE = """
import resource
from sth_protocol.descriptors import raise_descriptor_limit

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64)
"""


def test_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOURCE], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "True\n"
