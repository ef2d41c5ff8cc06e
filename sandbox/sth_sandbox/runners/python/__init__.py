"""The Python runner: `run_instance()` in a child of the zygote, or this folder executed.

Importing it loads all that an Instance needs before its own program: what is not loaded by then
may be out of reach once the root directory has been changed, and costs every Instance anew.
"""

from sth_sandbox.runners.python import preload as preload
from sth_sandbox.runners.python.entry import run_instance

__all__ = ["run_instance"]
