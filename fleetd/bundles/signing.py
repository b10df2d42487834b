"""Signing keys and signatures: ECDSA on P-256 over SHA-256, raw r || s (ES256).

The private key stays with the operator; fleetd holds public keys and only verifies. A public key is 64 bytes
(x || y); its id, by which manifests name it, is the first 8 bytes of its SHA-256. The exact bytes of a signed
manifest are described in `fleetd.protocol.manifest`.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fleetd.bundles import manifests
from fleetd.bundles.errors import KeyFileError, KeyPasswordError, ManifestRejectedError, SigningError
from fleetd.protocol import limits
from fleetd.protocol.manifest import HEADER_BYTES, KEY_ID_BYTES, MAGIC, SIGNATURE_BYTES, Manifest

PUBLIC_BYTES: Final = 64
_KEY_FILE_BYTES: Final = 16 * 1024
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_SIGNED_HEAD: Final = len(MAGIC) + KEY_ID_BYTES
_OTHERS: Final = 0o077  # permission bits of everyone but the owner


class OperatorKey:
    """A private signing key. It never leaves this object except through `save`."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        numbers = private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path, password: str | None = None) -> Self:
        """The key in this PEM file. Raises KeyFileError, or KeyPasswordError when only the password is wrong."""
        data = _read_private(path)
        encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in data
        if encrypted and not password:
            raise KeyPasswordError(f"The signing key {path} has a password. Give it.", path=str(path))
        try:
            secret = password.encode() if encrypted and password else None
            private = serialization.load_pem_private_key(data, secret)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if encrypted:
                raise KeyPasswordError(path=str(path)) from None
            raise KeyFileError(
                f"{path} is damaged or no PEM key. Restore it from its copy.", path=str(path)
            ) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise KeyFileError(
                f"{path} holds another kind of key; fleetd signs with P-256 keys.", path=str(path)
            )
        return cls(private)

    def save(self, path: Path, password: str | None) -> None:
        """Writes a new PEM file that only its owner can read; never replaces one.

        `password` None writes it in the clear, which only a demonstration should want.
        """
        if password is not None and not password:
            raise KeyFileError("The password is empty. Give one, or ask for a key without a password.")
        protection = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password.encode())
        )
        pem = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )
        _write_private(path, pem)

    @property
    def key_id(self) -> bytes:
        """The 8 bytes by which manifests name this key."""
        return key_id(self.public)

    def sign(self, payload: bytes, magic: bytes = MAGIC) -> bytes:
        """The signed manifest (or, with its magic, key record) for these JSON bytes: header and payload."""
        if HEADER_BYTES + len(payload) > limits.MANIFEST_BYTES:
            raise SigningError(
                f"The manifest has {HEADER_BYTES + len(payload)} bytes; at most {limits.MANIFEST_BYTES} are possible."
            )
        head = magic + self.key_id
        r, s = decode_dss_signature(self._private.sign(head + payload, _ALGORITHM))
        return head + r.to_bytes(32, "big") + s.to_bytes(32, "big") + payload


def key_id(public: bytes) -> bytes:
    """The id of a public key of 64 bytes."""
    return hashlib.sha256(public).digest()[:KEY_ID_BYTES]


def check_public(public: bytes) -> None:
    """That these bytes are a usable public key. Raises KeyFileError."""
    _public_key(public)


def verify(blob: bytes, public_keys: Iterable[bytes]) -> Manifest:
    """The manifest, when one of these keys signed it. Nothing of it is parsed before that is certain.

    Raises ManifestRejectedError with the reason a camera would give.
    """
    return manifests.parse(open_signed(blob, public_keys))


def open_signed(blob: bytes, public_keys: Iterable[bytes], magic: bytes = MAGIC) -> bytes:
    """The payload, when one of these keys signed it under this magic. Raises as `verify` does."""
    if len(blob) > limits.MANIFEST_BYTES:
        raise ManifestRejectedError(
            "manifest-invalid",
            f"The manifest has {len(blob)} bytes; at most {limits.MANIFEST_BYTES} are accepted.",
        )
    if len(blob) <= HEADER_BYTES or not blob.startswith(magic):
        raise ManifestRejectedError("signature-invalid", "This is not a signed manifest.")
    signer, payload = blob[len(MAGIC) : _SIGNED_HEAD], blob[HEADER_BYTES:]
    public = next((public for public in public_keys if key_id(public) == signer), None)
    if public is None:
        raise ManifestRejectedError(
            "unknown-key",
            f"The manifest is signed with key {signer.hex()}, which is not accepted here. "
            "Add its public key, or sign with one that is.",
            key_id=signer.hex(),
        )
    signature = blob[_SIGNED_HEAD:HEADER_BYTES]
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:SIGNATURE_BYTES]))
    try:
        _public_key(public).verify(encode_dss_signature(r, s), blob[:_SIGNED_HEAD] + payload, _ALGORITHM)
    except InvalidSignature:
        raise ManifestRejectedError(
            "signature-invalid",
            "The signature does not match the manifest: it was changed, or made with another key.",
        ) from None
    return payload


def _public_key(public: bytes) -> ec.EllipticCurvePublicKey:
    if len(public) != PUBLIC_BYTES:
        raise KeyFileError(f"A public key has {PUBLIC_BYTES} bytes (x and y), not {len(public)}.")
    x, y = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise KeyFileError("These 64 bytes are no P-256 public key: the point is not on the curve.") from None


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_KEY_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(
            f"The signing key {path} cannot be read: {error.strerror}.", path=str(path)
        ) from None
    if os.name == "posix" and mode & _OTHERS:
        raise KeyFileError(
            f"Others than you can read the signing key {path}. Run: chmod 600 {path}",
            path=str(path),
            mode=oct(mode),
        )
    return data


def _write_private(path: Path, data: bytes) -> None:
    """Creates the file whole and with mode 0600, or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _link(draft, path)
    except OSError as error:
        raise KeyFileError(
            f"The key cannot be written to {path}: {error.strerror}.", path=str(path)
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _link(draft: Path, path: Path) -> None:
    """Gives the draft its name; unlike a rename, a link never replaces a file."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise KeyFileError(f"{path} exists already and was left as it is.", path=str(path)) from None
