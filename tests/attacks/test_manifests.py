"""Whatever a broker or a server puts in the place of a manifest: refused by name, before anything is erased."""

import pytest

from tests.attacks.kit import Victim, release
from tests.attacks.manifests import GOOD, MANIFESTS


@pytest.mark.parametrize("attack", MANIFESTS)
def test_it_is_refused_before_anything_is_erased(attack: str) -> None:
    blob, state, reason = MANIFESTS[attack]
    Victim().offered(release(blob)).repelled(state, reason)


def test_the_same_manifest_unharmed_is_taken() -> None:
    """Else every one of the tests above might pass for another reason."""
    victim = Victim().offered(release(GOOD))
    assert victim.last()[0] == "trial"
    victim.classify().run()
    assert victim.last() == ("confirmed", None)
