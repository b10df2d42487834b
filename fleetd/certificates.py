"""A certificate authority of one's own, for the way between cameras and the broker. ECDSA P-256 throughout.

Certificates begin on the last day of 1999: a camera without a clock believes that it is 2000, or any later year,
and refuses what begins in its future. For the same reason a camera cannot tell that a certificate has ended; what
ends trust in a key is another authority. The broker's certificate is renewed long before its end all the same,
because other programs have clocks.
"""

import base64
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetd.errors import ConflictError, InvalidError, NotFoundError, SettingsError

BEGIN: Final = datetime(1999, 12, 31, tzinfo=UTC)
AUTHORITY_END: Final = datetime(2049, 12, 31, tzinfo=UTC)  # later dates are written in another form
BROKER_DAYS: Final = 825
RENEW_DAYS: Final = 120  # so long before the end
# In every broker's certificate, whatever its address: what cameras expect, so that it may move.
BROKER_NAME: Final = "fleetd-broker"
NAMES: Final = 50  # in one certificate
DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Shown:
    """What a certificate says. Times are Unix seconds."""

    subject: str
    names: tuple[str, ...]
    ends_at: float
    sha256: str


class Authority:
    """The authority and the broker's certificate in one folder.

    `ca.pem` and `ca.der` are public; `ca.key`, `broker.key` are readable by their owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.certificate = self.folder / "ca.pem"
        self.der = self.folder / "ca.der"
        self.key = self.folder / "ca.key"
        self.broker_certificate = self.folder / "broker.pem"
        self.broker_key = self.folder / "broker.key"

    @property
    def exists(self) -> bool:
        """Whether there is one, with a certificate for the broker."""
        return self.certificate.exists() and self.broker_certificate.exists() and self.broker_key.exists()

    def make(self, names: Sequence[str], now: float) -> None:
        """Makes the authority and the broker's first certificate. ConflictError: there is one already."""
        checked = _names(names)
        if self.certificate.exists() or self.key.exists():
            raise ConflictError(
                f"There is an authority in {self.folder} already, which cameras may trust. Nothing was changed. "
                "`fleetd ca renew` makes a new certificate for the broker; to begin anew, move the folder away."
            )
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject("fleetd CA")
        made = (
            _begun(name, name, key.public_key(), AUTHORITY_END)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self._make_folder()
        _write(self.key, _pem_of_key(key), private=True)
        _write(self.der, made.public_bytes(serialization.Encoding.DER))
        _write(self.certificate, made.public_bytes(serialization.Encoding.PEM))
        self._issue_broker(checked, now)

    def renew(self, names: Sequence[str], now: float) -> None:
        """A new key and certificate for the broker; without names, for those of the old one."""
        self._issue_broker(_names(names) if names else list(self.broker().names), now)

    def needs_renewal(self, now: float) -> bool:
        """Whether the broker's certificate ends before long and can be renewed here."""
        return self.exists and self.key.exists() and self.broker().ends_at - now < RENEW_DAYS * DAY

    def issue_client(self, name: str, now: float) -> tuple[Path, Path]:
        """A certificate by which a program shows who it is; answers the files of certificate and key."""
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 63 or not name.isascii():
            raise InvalidError(f"{name!r} cannot name a certificate: letters, digits, - and _ only.")
        certificate, key = self.folder / f"client-{name}.pem", self.folder / f"client-{name}.key"
        self._issue(name, [], ExtendedKeyUsageOID.CLIENT_AUTH, certificate, key, now)
        return certificate, key

    def authority(self) -> Shown:
        """What the authority's certificate says."""
        return _shown(_read(self.certificate))

    def broker(self) -> Shown:
        """What the broker's certificate says."""
        return _shown(_read(self.broker_certificate))

    def for_cameras(self) -> str:
        """The authority's certificate as it stands in a camera's settings: DER in base64."""
        return base64.b64encode(_read(self.certificate).public_bytes(serialization.Encoding.DER)).decode()

    def _issue_broker(self, names: list[str], now: float) -> None:
        wanted = [BROKER_NAME, *(name for name in names if name != BROKER_NAME)]
        self._issue(
            BROKER_NAME,
            wanted,
            ExtendedKeyUsageOID.SERVER_AUTH,
            self.broker_certificate,
            self.broker_key,
            now,
        )

    def _issue(
        self,
        subject: str,
        names: list[str],
        use: x509.ObjectIdentifier,
        certificate: Path,
        key: Path,
        now: float,
    ) -> None:
        signer, authority = self._signer(), _read(self.certificate)
        own = ec.generate_private_key(ec.SECP256R1())
        end = datetime.fromtimestamp(now + BROKER_DAYS * DAY, UTC)
        builder = (
            _begun(_subject(subject), authority.subject, own.public_key(), end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        made = builder.sign(signer, hashes.SHA256())
        _write(key, _pem_of_key(own), private=True)
        _write(certificate, made.public_bytes(serialization.Encoding.PEM))

    def _signer(self) -> ec.EllipticCurvePrivateKey:
        try:
            found = serialization.load_pem_private_key(self.key.read_bytes(), None)
        except FileNotFoundError:
            raise NotFoundError(
                f"The authority's key is not here ({self.key}). Put it back for as long as it takes to sign."
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"{self.key} cannot be read as the authority's key: {error}") from error
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise SettingsError(f"{self.key} holds a key of another kind.")
        return found

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SettingsError(f"The folder {self.folder} cannot be made: {error.strerror}.") from error


def _begun(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(min(end, AUTHORITY_END))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _names(names: Sequence[str]) -> list[str]:
    """Host names and addresses, each once. InvalidError."""
    found = list(dict.fromkeys(name.strip().lower().rstrip(".") for name in names))
    if len(found) > NAMES:
        raise InvalidError(f"A certificate takes at most {NAMES} names.")
    for name in found:
        _general(name)
    return found


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.split(".")
    if len(name) > 253 or not all(
        label.isascii() and label.replace("-", "").isalnum() and len(label) <= 63 for label in labels
    ):
        raise InvalidError(f"{name!r} is neither a host name nor an address. Nothing was changed.")
    return x509.DNSName(name)


def _shown(certificate: x509.Certificate) -> Shown:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(name.value) for name in found)
    except x509.ExtensionNotFound:
        names = ()
    return Shown(
        subject=certificate.subject.rfc4514_string(),
        names=names,
        ends_at=certificate.not_valid_after_utc.timestamp(),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"There is no certificate {path}. `fleetd ca init` makes one.") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as a certificate: {error}") from error


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, *, private: bool = False) -> None:
    """Writes in one step; a private file is never readable by others, not even for a moment."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        mode = 0o600 if private else 0o644
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from error
