"""A sample of `benchmarks.halting`: the study runs, and says what it is made to say."""

from benchmarks.halting import RULES, fleetd, harmed, make_fleet


def test_traces_are_the_same_every_time_and_for_every_rule() -> None:
    assert make_fleet("silent", 0.1, 3) == make_fleet("silent", 0.1, 3)
    fleet = make_fleet("silent", 0.1, 3)
    assert {rule(fleet).harmed for rule in RULES.values()} == {rule(fleet).harmed for rule in RULES.values()}


def test_silent_and_wrong_releases_are_stopped_long_before_they_have_harmed_everybody() -> None:
    for kind in ("silent", "wrong"):
        fleet = make_fleet(kind, 0.2, 1)
        verdict = fleetd(fleet)
        assert verdict.halted
        assert verdict.harmed < harmed(fleet, 200) / 2


def test_a_rule_that_sees_only_what_is_told_does_not_stop_what_falls_silent() -> None:
    fleet = make_fleet("silent", 0.2, 1)
    assert not RULES["ratio"](fleet).halted
    assert RULES["ratio"](fleet).harmed == harmed(fleet, 200)
