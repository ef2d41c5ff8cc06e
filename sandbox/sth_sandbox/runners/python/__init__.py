"""The Python runner: `run_instance()` in a child of the zygote, or this folder executed.

Importing it loads all that an Instance needs before its own program: what is not loaded by then
may be out of reach once the root directory has been changed, and costs every Instance anew.
`warm_up()` in the zygote, before it freezes its objects, does the same for what is made when code
is first executed.
"""

from sth_sandbox.runners.python import preload as preload
from sth_sandbox.runners.python.entry import run_instance
from sth_sandbox.runners.python.warming import warm_up

__all__ = ["run_instance", "warm_up"]
