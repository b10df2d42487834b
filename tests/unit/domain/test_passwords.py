"""Credentials as mosquitto's password file has them."""

import hypothesis.strategies as st
from hypothesis import given, settings

from fleetd.domain.passwords import is_password, password_hash

SALT = b"0123456789ab"


@settings(max_examples=30)
@given(secret=st.text(max_size=60), other=st.text(max_size=60), salt=st.binary(min_size=12, max_size=12))
def test_only_the_credential_itself_matches(secret: str, other: str, salt: bytes) -> None:
    stored = password_hash(secret, salt)
    assert is_password(secret.encode(), stored)
    assert is_password(other.encode(), stored) == (other == secret)


@given(stored=st.one_of(st.text(), st.from_regex(r"\$[67]\$[0-9]{0,3}\$[A-Za-z0-9+/=]*\$[A-Za-z0-9+/=]*")))
def test_text_of_another_form_matches_nothing_and_never_raises(stored: str) -> None:
    assert not is_password(b"x", stored)


def test_the_form_is_the_one_mosquitto_reads() -> None:
    scheme, rounds, salt, digest = password_hash("secret", SALT).split("$")[1:]
    assert (scheme, rounds, salt) == ("7", "101", "MDEyMzQ1Njc4OWFi")
    assert len(digest) == 88
