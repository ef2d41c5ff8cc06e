"""Self-clocked group commit: what arrives while the disk syncs becomes the next group.

So an idle disk syncs at once and a busy one syncs rarely, without any timer. The caller owns the
thread: it takes a group, writes and syncs it, answers its members, and takes the next.
"""

from collections import deque
from typing import Generic, TypeVar

Member = TypeVar("Member")

MAX_GROUP_BYTES = 8 * 1024 * 1024


class GroupCommit(Generic[Member]):
    """The members that wait, in order. A group is bounded, so that its sync is."""

    def __init__(self, max_bytes: int = MAX_GROUP_BYTES) -> None:
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Member, int]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, member: Member, size: int) -> None:
        """`size`: in bytes."""
        self._waiting.append((member, size))

    def take_group(self) -> list[Member]:
        """The next group, at least one member if any waits."""
        group: list[Member] = []
        room = self._max_bytes
        while self._waiting and (not group or self._waiting[0][1] <= room):
            member, size = self._waiting.popleft()
            group.append(member)
            room -= size
        return group
