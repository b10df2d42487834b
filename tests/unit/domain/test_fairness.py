"""Who gives way when there is not room for everybody."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.fairness import keep_fairly


def test_the_busiest_gives_up_its_oldest_first() -> None:
    assert keep_fairly(["a", "b", "b", "b"], 2) == [0, 3]


def test_with_equal_shares_the_oldest_go() -> None:
    assert keep_fairly(["a", "b", "c", "d"], 2) == [2, 3]


@given(st.lists(st.sampled_from("abcd"), max_size=60), st.integers(0, 40))
def test_exactly_as_many_are_kept_as_there_is_room_for_and_nobody_loses_while_another_has_more(
    senders: list[str], most: int
) -> None:
    kept = keep_fairly(senders, most)
    assert len(kept) == min(most, len(senders))
    assert kept == sorted(set(kept))
    before, after = Counter(senders), Counter(senders[place] for place in kept)
    for sender in before:
        if after[sender] < before[sender]:
            assert after[sender] >= max(after.values(), default=0) - 1
