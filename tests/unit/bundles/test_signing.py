import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from camera_agent import crypto
from camera_agent.manifest import open_manifest
from fleetd.bundles import manifests
from fleetd.bundles.errors import KeyFileError, KeyPasswordError, ManifestRejectedError, SigningError
from fleetd.bundles.signing import OperatorKey, check_public, key_id, verify
from fleetd.protocol.manifest import HEADER_BYTES, Manifest

KEY = OperatorKey.generate()
OTHER = OperatorKey.generate()
DIGEST = "ab" * 32
FIELDS: dict[str, Any] = {
    "format": 1,
    "release": "bees-7",
    "kind": "model",
    "name": "Bienen 🐝",
    "version": "7",
    "epoch": 1,
    "sequence": 7,
    "created": 1_700_000_000,
    "boards": ["OMVRT1060"],
    "content": {
        "size": 100,
        "sha256": DIGEST,
        "files": [
            {"path": "labels.txt", "offset": 10, "size": 10, "sha256": DIGEST},
            {"path": "trained.tflite", "offset": 20, "size": 80, "sha256": DIGEST},
        ],
    },
    "encodings": [{"kind": "deflate", "size": 90, "sha256": DIGEST, "index": [DIGEST]}],
}
PAYLOAD = manifests.canonical(Manifest.model_validate(FIELDS))
BLOB = KEY.sign(PAYLOAD)


def reason(blob: bytes, keys: tuple[bytes, ...] = (KEY.public,)) -> str:
    with pytest.raises(ManifestRejectedError) as caught:
        verify(blob, keys)
    assert caught.value.facts["reason"] == caught.value.reason
    return caught.value.reason


def test_a_signed_manifest_is_read_by_the_server_and_by_the_camera() -> None:
    assert verify(BLOB, (OTHER.public, KEY.public)) == Manifest.model_validate(FIELDS)
    on_camera = open_manifest(BLOB, crypto.keyring([KEY.public]))
    assert on_camera["release"] == "bees-7"
    assert on_camera["name"] == "Bienen 🐝"


def test_the_form_that_is_signed_is_canonical() -> None:
    assert (
        json.dumps(json.loads(PAYLOAD), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        == PAYLOAD
    )
    assert b"null" not in PAYLOAD
    assert manifests.canonical(verify(BLOB, [KEY.public])) == PAYLOAD


def test_no_flipped_bit_is_accepted() -> None:
    for bit in range(8 * len(BLOB)):
        if bit >= 8 * (HEADER_BYTES + 16) and bit % 13:  # all of the header, a sample of the rest
            continue
        data = bytearray(BLOB)
        data[bit // 8] ^= 1 << bit % 8
        assert reason(bytes(data)) in ("signature-invalid", "unknown-key")


def test_a_key_that_is_not_accepted_is_named() -> None:
    assert reason(BLOB, ()) == "unknown-key"
    assert reason(BLOB, (OTHER.public,)) == "unknown-key"


def test_a_signature_by_another_key_under_our_key_id_is_refused() -> None:
    forged = OTHER.sign(PAYLOAD)
    assert reason(forged[:4] + KEY.key_id + forged[12:]) == "signature-invalid"


@pytest.mark.parametrize(
    "signature", [bytes(64), b"\xff" * 64, bytes(31) + b"\1" + bytes(32), bytes(32) + b"\1" * 32]
)
def test_impossible_signatures_are_refused(signature: bytes) -> None:
    assert reason(BLOB[:12] + signature + BLOB[76:]) == "signature-invalid"


@pytest.mark.parametrize(
    "blob",
    [b"", b"FLM1", BLOB[:HEADER_BYTES], b"FLM2" + BLOB[4:]],
    ids=["empty", "magic", "no payload", "other magic"],
)
def test_what_is_no_signed_manifest_is_refused(blob: bytes) -> None:
    assert reason(blob) == "signature-invalid"


def test_a_manifest_over_its_limit_is_neither_made_nor_read() -> None:
    with pytest.raises(SigningError, match="at most 8192"):
        KEY.sign(b"{" + b" " * 8192)
    assert reason(BLOB + b" " * 8192) == "manifest-invalid"


def _set(**fields: Any) -> dict[str, Any]:
    return {**FIELDS, **fields}


def _encoding(**fields: Any) -> dict[str, Any]:
    return {**FIELDS["encodings"][0], **fields}


def _files(*files: dict[str, Any]) -> dict[str, Any]:
    return {**FIELDS["content"], "files": list(files)}


_FILE = {"path": "a", "offset": 0, "size": 10, "sha256": DIGEST}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        _set(format=2),
        _set(sequence=0),
        _set(sequence="7"),
        _set(sequence=7.0),
        _set(epoch=2**31),
        _set(kind="firmware"),
        _set(release="../etc"),
        _set(boards=[]),
        _set(threshold=1.5),
        _set(encodings=[]),
        _set(encodings=[_encoding(index=[DIGEST, DIGEST])]),
        _set(encodings=[_encoding(size=200 * 4096)]),
        _set(encodings=[_encoding(base=DIGEST)]),
        _set(encodings=[_encoding(kind="patch")]),
        _set(encodings=[_encoding(kind="patch", base=DIGEST)]),
        _set(encodings=[_encoding(), _encoding()]),
        _set(encodings=[_encoding(sha256="AB" * 32)]),
        _set(content=_files()),
        _set(content=_files(_FILE, {**_FILE, "offset": 50})),
        _set(content=_files(_FILE, {**_FILE, "path": "b", "offset": 9})),
        _set(content=_files({**_FILE, "offset": 91})),
        _set(content=_files({**_FILE, "path": "../a"})),
    ],
)
def test_a_signed_manifest_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    assert reason(KEY.sign(json.dumps(fields).encode())) == "manifest-invalid"


@pytest.mark.parametrize("payload", [b"[]", b"{", b"\xff\xfe", b"[" * 4000, b'{"format":NaN}', b"0"])
def test_a_signed_payload_that_is_no_json_object_is_refused(payload: bytes) -> None:
    assert reason(KEY.sign(payload)) == "manifest-invalid"


# --- key files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", [None, "correct horse", "пароль"])
def test_a_key_comes_back_from_its_file(tmp_path: Path, password: str | None) -> None:
    path = tmp_path / "keys" / "release.pem"
    KEY.save(path, password)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    loaded = OperatorKey.load(path, password)
    assert (loaded.public, loaded.key_id) == (KEY.public, KEY.key_id)
    assert verify(loaded.sign(PAYLOAD), [KEY.public]).sequence == 7
    assert (b"ENCRYPTED" in path.read_bytes()) == (password is not None)


def test_the_mode_is_tight_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        KEY.save(tmp_path / "release.pem", None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "release.pem").stat().st_mode) == 0o600


def test_an_existing_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "release.pem"
    KEY.save(path, None)
    with pytest.raises(KeyFileError, match="left as it is"):
        OTHER.save(path, None)
    assert OperatorKey.load(path).public == KEY.public
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_a_wrong_or_missing_password_is_told_from_a_damaged_file(
    tmp_path: Path, password: str | None
) -> None:
    path = tmp_path / "release.pem"
    KEY.save(path, "right")
    with pytest.raises(KeyPasswordError):
        OperatorKey.load(path, password)
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyFileError, match="damaged"):
        OperatorKey.load(path, password)


def test_an_empty_password_is_not_mistaken_for_none(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="password is empty"):
        KEY.save(tmp_path / "release.pem", "")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "release.pem"
    KEY.save(path, None)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        OperatorKey.load(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    others: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ]
    for n, private in enumerate(others):
        path = tmp_path / f"{n}.pem"
        path.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match="another kind"):
            OperatorKey.load(path)


def test_a_missing_key_or_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        OperatorKey.load(tmp_path / "nothing.pem")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError, match="cannot be written"):
        KEY.save(tmp_path / "file" / "release.pem", None)


def test_public_keys_are_checked() -> None:
    check_public(KEY.public)
    for wrong in (b"", KEY.public[:63], bytes(64), KEY.public[:-1] + bytes([KEY.public[-1] ^ 1])):
        with pytest.raises(KeyFileError):
            check_public(wrong)
    assert key_id(KEY.public) == crypto.key_id(KEY.public)
