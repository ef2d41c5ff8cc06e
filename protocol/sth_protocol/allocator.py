"""Keeps the memory of one chunk for the next.

glibc gives the top of the heap back to the kernel as soon as 128 KiB of it are free. A process that
moves 64 KiB chunks takes it again at once: measured at eight page faults for each chunk, and two
thirds of the system time of a sender.
"""

import ctypes
from typing import Final

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 8 * 1024 * 1024
# Setting either of the two ends glibc's own adjustment of both.
MAPPED_BYTES: Final = 2 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Let up to 8 MiB of freed heap stay with this process; False where the C library has no such
    knob (musl), and there is no need for it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES))
