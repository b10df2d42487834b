"""Pacing: never more at a time than a limit says, nobody starves, and a closed gate says why."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.pacing import Load, choose, full_sites, gate, is_paced, opens_at
from fleetd.domain.records import RolloutSettings


@dataclass(frozen=True)
class One:
    site: str


def utc(_zone: str, _at: float) -> float:
    return 0.0


LIMIT = st.none() | st.integers(1, 6)
SITES = st.sampled_from(["", "berlin", "porto"])
LOADS = st.builds(
    Load,
    here=st.integers(0, 8),
    at_site=st.dictionaries(SITES, st.integers(0, 8)),
    last_hour=st.dictionaries(SITES, st.integers(0, 8)),
)


@given(st.lists(SITES, max_size=30), LIMIT, LIMIT, LIMIT, LOADS)
def test_no_limit_is_ever_exceeded_and_room_is_used(
    sites: list[str], at_once: int | None, site: int | None, hour: int | None, load: Load
) -> None:
    settings = RolloutSettings(at_once=at_once, site_at_once=site, site_per_hour=hour)
    candidates = [One(name) for name in sites]
    chosen = choose(candidates, settings, load)
    taken = Counter(one.site for one in chosen)
    if at_once is not None and chosen:
        assert load.here + len(chosen) <= at_once
    for name, number in taken.items():
        assert site is None or load.at_site.get(name, 0) + number <= site
        assert hour is None or load.last_hour.get(name, 0) + number <= hour
    if at_once is None:
        full = full_sites(settings, load)
        left = [one for one in candidates if one.site not in full]
        assert bool(chosen) == bool(left), "whoever has room gets an offer"
    if not is_paced(settings):
        assert chosen == candidates


def test_a_full_site_does_not_hold_up_another() -> None:
    settings = RolloutSettings(site_at_once=1)
    waiting = [One("berlin")] * 5 + [One("porto")]
    assert choose(waiting, settings, Load(at_site={"berlin": 1})) == [One("porto")]


def test_a_gate_that_is_closed_says_why_and_when_it_opens() -> None:
    later = RolloutSettings(start_at=1_000.0)
    assert not gate(later, 999.0, utc).is_open
    assert gate(later, 1_000.0, utc).is_open
    assert opens_at(later, 0.0, utc) == 1_000.0
    noon = RolloutSettings(window="12:00-13:00 UTC")
    closed = gate(noon, 3_600.0, utc)
    assert (closed.is_open, "12:00-13:00 UTC" in closed.why) == (False, True)
    assert opens_at(noon, 3_600.0, utc) == 12 * 3_600.0
    both = RolloutSettings(start_at=12.5 * 3_600, window="12:00-13:00 UTC")
    assert opens_at(both, 0.0, utc) == 12.5 * 3_600
    assert gate(RolloutSettings(), 0.0, utc).is_open
