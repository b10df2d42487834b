"""Who gives way when there is not room for everybody's messages."""

import heapq
from collections import deque
from collections.abc import Sequence


def keep_fairly(senders: Sequence[str], most: int) -> list[int]:
    """The places of at most `most` entries to keep, in order. `senders` names each entry's, oldest first.

    Whoever has most gives up the oldest of it first, so a flood from one pushes out its own, and what others
    have said stays.
    """
    mine: dict[str, deque[int]] = {}
    for place, sender in enumerate(senders):
        mine.setdefault(sender, deque()).append(place)
    if len(senders) > most:
        largest = [(-len(places), places[0], sender) for sender, places in mine.items()]
        heapq.heapify(largest)
        for _ in range(len(senders) - most):
            _, _, sender = largest[0]
            places = mine[sender]
            places.popleft()
            if places:
                heapq.heapreplace(largest, (-len(places), places[0], sender))
            else:
                heapq.heappop(largest)
    return sorted(place for places in mine.values() for place in places)
