"""The authority that fleetd makes, and what it signs."""

import base64
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleetd.certificates import BROKER_NAME, DAY, RENEW_DAYS, Authority
from fleetd.errors import ConflictError, InvalidError, NotFoundError, SettingsError

NOW = 1_800_000_000.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "ca")
    made.make(["site.example", "192.168.1.10", "::1", "site.example."], NOW)
    return made


def test_certificates_begin_before_any_camera_without_a_clock_thinks_it_is(authority: Authority) -> None:
    for path in (authority.certificate, authority.broker_certificate):
        found = x509.load_pem_x509_certificate(path.read_bytes())
        assert found.not_valid_before_utc.timestamp() < 946_684_800  # 2000
        key = found.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"


def test_the_brokers_certificate_has_every_name_once_and_the_one_cameras_ask_for(
    authority: Authority,
) -> None:
    assert authority.broker().names == (BROKER_NAME, "site.example", "192.168.1.10", "::1")


def test_cameras_get_the_authority_as_der(authority: Authority) -> None:
    assert base64.b64decode(authority.for_cameras()) == authority.der.read_bytes()
    context = ssl.create_default_context(cadata=authority.der.read_bytes())
    assert len(context.get_ca_certs()) == 1
    assert len(authority.der.read_bytes()) < 600, "it is part of 8 KB of settings"


def test_keys_are_readable_by_their_owner_only(authority: Authority) -> None:
    assert authority.folder.stat().st_mode & 0o777 == 0o700
    for path in (authority.key, authority.broker_key):
        assert path.stat().st_mode & 0o777 == 0o600


def test_an_authority_is_never_overwritten(authority: Authority) -> None:
    before = authority.certificate.read_bytes()
    with pytest.raises(ConflictError, match="Nothing was changed"):
        authority.make(["x"], NOW)
    assert authority.certificate.read_bytes() == before


def test_the_brokers_certificate_is_renewed_in_time_under_the_same_authority(authority: Authority) -> None:
    before, trusted = authority.broker(), authority.certificate.read_bytes()
    assert not authority.needs_renewal(NOW)
    assert authority.needs_renewal(before.ends_at - RENEW_DAYS * DAY + 1)
    authority.renew([], NOW + 700 * DAY)
    after = authority.broker()
    assert after.names == before.names
    assert after.ends_at > before.ends_at + 600 * DAY
    assert after.sha256 != before.sha256
    assert authority.certificate.read_bytes() == trusted


def test_a_client_certificate_carries_its_name(authority: Authority) -> None:
    certificate, key = authority.issue_client("dashboard", NOW)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert found.subject.rfc4514_string() == "CN=dashboard"
    assert key.stat().st_mode & 0o777 == 0o600
    for hostile in ("../x", "", "a/b", "a b", "ü", "x" * 64):
        with pytest.raises(InvalidError):
            authority.issue_client(hostile, NOW)


@pytest.mark.parametrize(
    "name", ["a b", "", "../x", "a..b", "-" * 3 + "/", "x" * 300, "ü.example", "*.example"]
)
def test_what_is_no_name_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        Authority(tmp_path / "ca").make([name], NOW)
    assert not (tmp_path / "ca").exists()


def test_missing_and_damaged_files_are_told_with_what_to_do(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="ca init"):
        Authority(tmp_path / "none").broker()
    authority.key.rename(authority.key.with_suffix(".away"))
    assert not authority.needs_renewal(time.time() + 10_000 * DAY), "nothing to sign with"
    with pytest.raises(NotFoundError, match="Put it back"):
        authority.renew([], NOW)
    authority.key.write_text("no key")
    with pytest.raises(SettingsError):
        authority.renew([], NOW)
    authority.broker_certificate.write_text("no certificate")
    with pytest.raises(SettingsError):
        authority.broker()
