"""Runs an Instance in an interpreter of its own: `python -I -S .../runners/python`."""

import sys
from pathlib import Path

# An isolated interpreter started on this folder knows no path to the package that it is part of.
sys.path[0] = str(Path(__file__).resolve().parents[3])

from sth_sandbox.runners.python import run_instance  # noqa: E402

run_instance()
