"""Calls that wait, in a fair order: callers take turns by queries served, not by calls.

This is fair queueing with a virtual clock: a caller's turn is the number of queries that were
served to it while it waited, and the one with the lowest turn is next. Who comes new starts at the
clock, which counts the queries that each caller would have been served in perfect fairness; so
neither those who wait nor those who come can be starved. Only calls of one group can run together:
the next caller chooses the group, and all callers who wait in that group share the batch. Calls of
one caller and group keep their order.

Belongs to the event loop's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import final

from motherlode.server.call import Call, Part

# Calls of so few queries run whole: to share more finely costs more than it helps.
_SMALLEST_PART = 8


@final
class Line:
    """What one caller has waiting.

    Attributes:
        caller: Its name.
        turn: Queries served to it, counted from where others were when it came.
        number: Order of callers with the same turn.
        groups: Its calls by group, the next group first.
        num_left: Queries that wait.
        num_bytes: Memory that its calls hold.
    """

    __slots__ = ("caller", "groups", "num_bytes", "num_left", "number", "turn")

    def __init__(self, caller: str, turn: float, number: int) -> None:
        self.caller = caller
        self.turn = turn
        self.number = number
        self.groups: dict[Hashable, deque[Call]] = {}
        self.num_left = 0
        self.num_bytes = 0

    def newest_unstarted(self) -> Call | None:
        """Its latest call of which no query was taken."""
        calls = [calls[-1] for calls in self.groups.values() if calls and not calls[-1].num_taken]
        return max(calls, key=lambda call: call.arrived, default=None)


# Turn, number and the line itself; the turn may be an earlier one of the line's.
_Heap = list[tuple[float, int, Line]]


@final
class FairQueue:
    """The calls that wait.

    Args:
        is_wanted: Whether a call is still to run; one that is not is taken out.

    Attributes:
        num_calls: Calls that wait.
        num_left: Queries that wait.
        num_bytes: Memory that the waiting calls hold.
    """

    def __init__(self, is_wanted: Callable[[Call], bool]) -> None:
        self._is_wanted = is_wanted
        self._lines: dict[str, Line] = {}
        # Every line that has a group is in `_turns`, and in `_members` of each of its groups.
        self._turns: _Heap = []
        self._members: dict[Hashable, _Heap] = {}
        self._numbers = count()
        self._clock = 0.0
        self.num_calls = 0
        self.num_left = 0
        self.num_bytes = 0

    def put(self, call: Call) -> None:
        """Adds a call behind those of its caller."""
        line = self._lines.get(call.caller)
        if line is None:
            line = self._lines[call.caller] = Line(call.caller, self._clock, next(self._numbers))
            heappush(self._turns, (line.turn, line.number, line))
        calls = line.groups.get(call.group)
        if calls is None:
            calls = line.groups[call.group] = deque()
            heappush(self._members.setdefault(call.group, []), (line.turn, line.number, line))
        calls.append(call)
        self._count(line, call, 1)

    def take(self, room_for: Callable[[Call], int]) -> list[Part]:
        """What runs next: parts of calls of one group; empty where nothing waits.

        Args:
            room_for: The most queries that may run together with this call's, at least 1.
        """
        while (line := self._next_line()) is not None:
            self._clock = max(self._clock, line.turn)
            num_lines = len(self._lines)
            if parts := self._take_group(next(iter(line.groups)), room_for):
                # As if one more caller had waited: who comes now goes before who was just served.
                self._clock += sum(map(len, parts)) / (num_lines + 1)
                return parts
        return []

    def num_before(self, caller: str) -> int:
        """Queries that run before the first of a call that this caller made now, more or less."""
        line = self._lines.get(caller)
        own = 0 if line is None else line.num_left
        num_others = len(self._lines) - (line is not None)
        # While the caller's own are served, so many of every other caller's are, at most.
        return min(self.num_left, own + num_others * (own + 1))

    def has_more_than_its_share(self, caller: str) -> bool:
        """Whether more of a caller's queries wait than of all who have any in the mean."""
        line = self._lines.get(caller)
        return line is not None and line.num_left * len(self._lines) > self.num_left

    def withdraw_for(self, call: Call, size_of: Callable[[Line | Call], int]) -> Call | None:
        """Takes out the latest call of the caller who takes most room, to make room for a new call.

        Args:
            call: The new call. Nothing is taken out if its caller would have the most then.
            size_of: What there is no room for.
        """
        line = self._lines.get(call.caller)
        size = size_of(call) + (0 if line is None else size_of(line))
        largest = max(self._lines.values(), key=size_of, default=None)
        if largest is None or size_of(largest) <= size:
            return None
        victim = largest.newest_unstarted()
        if victim is not None:
            # The line is left in the heaps, and goes when its turn comes.
            largest.groups[victim.group].pop()
            self._count(largest, victim, -1)
        return victim

    def _next_line(self) -> Line | None:
        """The line with the lowest turn."""
        while self._turns:
            turn, number, line = self._turns[0]
            if not line.groups:
                heappop(self._turns)
            elif turn < line.turn:
                heapreplace(self._turns, (line.turn, number, line))
            else:
                return line
        return None

    def _take_group(self, group: Hashable, room_for: Callable[[Call], int]) -> list[Part]:
        starts: dict[Call, int] = {}
        room = share = 0
        while (head := self._head(group)) is not None:
            line, call = head
            if not starts:
                room = room_for(call)
                share = max(1, room // len(self._members[group]))
            size = _part_size(call.num_left, room, share)
            if not size:
                break
            starts.setdefault(call, call.num_taken)
            self._advance(line, call, size)
            room -= size
        return [Part(call, start, call.num_taken) for call, start in starts.items()]

    def _head(self, group: Hashable) -> tuple[Line, Call] | None:
        """The first wanted call of the line with the lowest turn in this group."""
        heap = self._members.get(group)
        while heap:
            turn, number, line = heap[0]
            if turn < line.turn:
                heapreplace(heap, (line.turn, number, line))
                continue
            calls = line.groups[group]
            while calls:
                if self._is_wanted(calls[0]):
                    return line, calls[0]
                self._count(line, calls.popleft(), -1)
            heappop(heap)
            self._leave(line, group)
        self._members.pop(group, None)
        return None

    def _advance(self, line: Line, call: Call, size: int) -> None:
        """So many more queries of a call, which is the first of its line and group, were taken."""
        call.num_taken += size
        call.num_left -= size
        line.turn += size
        line.num_left -= size
        self.num_left -= size
        calls = line.groups[call.group]
        if not call.num_left:
            calls.popleft()
            self._count(line, call, -1)
        if len(line.groups) > 1:
            # The line's other groups are before this one next time.
            line.groups[call.group] = line.groups.pop(call.group)

    def _leave(self, line: Line, group: Hashable) -> None:
        del line.groups[group]
        if not line.groups:
            del self._lines[line.caller]

    def _count(self, line: Line, call: Call, sign: int) -> None:
        self.num_calls += sign
        for counted in (line, self):
            counted.num_left += sign * call.num_left
            counted.num_bytes += sign * call.num_bytes


def _part_size(num_left: int, room: int, share: int) -> int:
    """Queries of a call that go into a batch; 0 if it is better off in the next one."""
    if num_left <= min(share, _SMALLEST_PART):
        return num_left if num_left <= room else 0
    return min(num_left, share, room)
