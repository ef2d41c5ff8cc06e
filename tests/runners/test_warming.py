import os
import sys

from sth_sandbox.runners.python import warm_up


def test_warm_up_leaves_the_process_as_it_was() -> None:
    before = (os.listdir("/proc/self/fd"), list(sys.path), list(sys.argv), os.getcwd())
    warm_up()
    assert (os.listdir("/proc/self/fd"), list(sys.path), list(sys.argv), os.getcwd()) == before
