"""How many descriptors this process may have open: by default far fewer than it could.

The soft limit protects programs that use select(); nothing here does.
"""

import resource


def raise_descriptor_limit() -> int:
    """Allow as many as the hard limit does; how many that is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
