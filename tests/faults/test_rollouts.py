"""A sample of `tests.faults.rollouts`, which `make faults` runs in full."""

from tests.faults.rollouts import cut, cuts, uncut

SAMPLE = 19  # every so many-th commit and publish


def test_a_three_wave_rollout_comes_to_the_same_end_wherever_fleetd_is_killed() -> None:
    expected, commits, publishes = uncut()
    assert commits > 15
    assert publishes > 15
    for when, at, loss in cuts(commits, publishes, SAMPLE):
        assert cut(when, at, loss) == expected, f"{when} {at} ({loss.__name__})"
