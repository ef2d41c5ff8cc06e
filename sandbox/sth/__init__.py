"""What Sequences import: `from sth import Context, sequence`.

Typed, standard library only, and usable where no broker is: `sth.testing.run` calls a Sequence as
the runner would. A Sequence needs none of it: a module with `run(context, input, *args)` runs
without importing anything.
"""

from sth.context import Context
from sth.declaration import sequence

__all__ = ["Context", "sequence"]
