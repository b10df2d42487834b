"""Manifests that no camera may install, by name, with the word it refuses them with. Names follow SUIT, Uptane, TUF."""

import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.agent.update_kit import Encoding, Signer, make_release, patch, weights
from tests.attacks.kit import OPERATOR, TARGET, THIEF, Manifest, plan, signed

ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
GOOD: Final = signed(plan())
HEAD, SIGNATURE, TEXT = GOOD[:12], GOOD[12:76], GOOD[76:]
R, S = SIGNATURE[:32], SIGNATURE[32:]

Case = tuple[bytes, str, str]  # bytes on the broker, state, reason


def with_signature(signature: bytes) -> bytes:
    return HEAD + signature + TEXT


def number(value: int) -> bytes:
    return value.to_bytes(32, "big")


def without(name: str) -> Manifest:
    made = plan()
    del made[name]
    return made


def content(**changes: Any) -> Manifest:
    return plan(content={**plan()["content"], **changes})


def file(**changes: Any) -> Manifest:
    files = plan()["content"]["files"]
    return content(files=[{**files[0], **changes}, *files[1:]])


def encoding(**changes: Any) -> Manifest:
    return plan(encodings=[{**plan()["encodings"][0], **changes}])


def flipped(at: int, bit: int) -> bytes:
    made = bytearray(GOOD)
    made[at] ^= 1 << bit
    return bytes(made)


def _arbitrary_software() -> dict[str, Case]:
    der = encode_dss_signature(int.from_bytes(R, "big"), int.from_bytes(S, "big"))
    other = make_release(OPERATOR, "model-9", weights(5000, 9), 9).blob
    bare = Signer(0x5EED).sign(TEXT)  # over the payload without magic and key id
    stranger = THIEF.manifest(TEXT)
    forged: dict[str, bytes] = {
        "unsigned-json": TEXT,
        "no-bytes-but-the-magic": GOOD[:4],
        "header-without-a-payload": GOOD[:76],
        "another-magic": b"FLM2" + GOOD[4:],
        "a-key-record's-magic": b"FKR1" + GOOD[4:],
        "signature-of-zeros": with_signature(bytes(64)),
        "signature-of-ones": with_signature(b"\xff" * 64),
        "r-is-zero": with_signature(bytes(32) + S),
        "s-is-zero": with_signature(R + bytes(32)),
        "r-is-the-order": with_signature(number(ORDER) + S),
        "s-is-the-order": with_signature(R + number(ORDER)),
        "r-beyond-the-order": with_signature(number((int.from_bytes(R, "big") + ORDER) % (1 << 256)) + S),
        "r-and-s-swapped": with_signature(S + R),
        "r-and-s-little-endian": with_signature(R[::-1] + S[::-1]),
        "signature-in-der": HEAD + der + TEXT,
        "signature-of-another-release": HEAD + other[12:76] + TEXT,
        "payload-of-another-release": GOOD[:76] + other[76:],
        "signature-without-the-header": with_signature(bare),
        "a-stranger's-signature-under-our-key-id": HEAD + stranger[12:76] + TEXT,
        "one-more-blank": GOOD + b" ",
        "one-byte-less": GOOD[:-1],
        "one-byte-in-front": b"\x00" + GOOD,
        "twice-in-a-row": GOOD + GOOD,
        "key-id-of-zeros": GOOD[:4] + bytes(8) + GOOD[12:],
        "a-stranger": stranger,
        "a-stranger-with-the-key-inside": THIEF.manifest(
            json.dumps(plan(key=THIEF.public.hex(), keys=[THIEF.public.hex()])).encode()
        ),
        "larger-than-any-manifest": GOOD + b" " * 8192,
    }
    unknown = {"key-id-of-zeros", "a-stranger", "a-stranger-with-the-key-inside"}
    cases = {
        name: (blob, "rejected", "unknown-key" if name in unknown else "signature-invalid")
        for name, blob in forged.items()
    }
    places = {
        **{f"bit-flip-in-the-key-id-{n}": (4 + n, n) for n in (0, 7)},
        **{f"bit-flip-in-r-{n}": (12 + n, n % 8) for n in (0, 15, 31)},
        **{f"bit-flip-in-s-{n}": (44 + n, n % 8) for n in (0, 15, 31)},
        **{f"bit-flip-in-the-payload-{n}": (76 + n * (len(TEXT) - 1) // 7, n % 8) for n in range(8)},
    }
    for name, (at, bit) in places.items():
        word = "unknown-key" if "key-id" in name else "signature-invalid"
        cases[name] = (flipped(at, bit), "rejected", word)
    return cases


def _malformed() -> dict[str, Case]:
    """Signed all right, and yet nothing a camera may act upon."""
    fields = ("format", "release", "kind", "name", "version", "epoch", "sequence", "created", "boards")
    made: dict[str, Manifest] = {
        f"without-{name}": without(name) for name in (*fields, "content", "encodings")
    }
    made |= {
        "another-format": plan(format=2),
        "another-release-inside": plan(release="model-3"),
        "release-with-a-slash": plan(release="../model-2"),
        "sequence-zero": plan(sequence=0),
        "sequence-negative": plan(sequence=-1),
        "sequence-true": plan(sequence=True),
        "sequence-a-fraction": plan(sequence=2.0),
        "sequence-as-text": plan(sequence="2"),
        "sequence-of-33-bits": plan(sequence=2**32),
        "epoch-zero": plan(epoch=0),
        "epoch-of-32-bits": plan(epoch=2**31),
        "no-boards": plan(boards=[]),
        "boards-as-text": plan(boards="OMVRT1060"),
        "a-board-that-is-empty": plan(boards=[""]),
        "33-boards": plan(boards=["OMVRT1060"] * 33),
        "threshold-2": plan(threshold=2),
        "content-of-no-bytes": content(size=0),
        "content-of-negative-size": content(size=-1),
        "content-of-16-exabytes": content(size=2**60),
        "content-digest-in-capitals": content(sha256="A" * 64),
        "content-digest-too-short": content(sha256="a" * 63),
        "content-without-files": content(files=[]),
        "content-of-17-files": content(files=plan()["content"]["files"] * 9),
        "file-path-upwards": file(path="../main.py"),
        "file-path-absolute": file(path="/flash/main.py"),
        "file-path-with-backslash": file(path="a\\b"),
        "file-path-with-nul": file(path="model\x00"),
        "file-behind-the-content": file(offset=9001),
        "file-longer-than-the-content": file(size=9001),
        "file-of-negative-offset": file(offset=-1),
        "no-encodings": plan(encodings=[]),
        "17-encodings": plan(encodings=plan()["encodings"] * 17),
        "encoding-of-no-bytes": encoding(size=0),
        "encoding-of-negative-size": encoding(size=-4096),
        "encoding-of-a-terabyte": encoding(size=2**40),
        "encoding-with-too-few-index-blocks": encoding(size=4096 * 129),
        "encoding-with-too-many-index-blocks": encoding(index=["a" * 64] * 2),
        "encoding-with-65-index-blocks": encoding(index=["a" * 64] * 65),
        "encoding-index-no-digest": encoding(index=["a"]),
        "patch-without-a-base": encoding(kind="patch"),
        "patch-with-half-a-base": encoding(kind="patch", base="a" * 32),
        "model-facts-no-object": plan(model=[]),
    }
    texts = {
        "not-json": b"model",
        "json-no-object": b"[1, 2]",
        "json-cut-off": TEXT[:-1],
        "json-nested-900-deep": b"[" * 900,
        "json-not-utf-8": b'{"format": 1, "release": "\xff\xfe"}',
        "json-with-nan": json.dumps(plan(threshold=float("nan"))).encode(),
    }
    cases = {name: (signed(one), "rejected", "manifest-invalid") for name, one in made.items()}
    return cases | {
        name: (OPERATOR.manifest(text), "rejected", "manifest-invalid") for name, text in texts.items()
    }


def _not_for_this_camera() -> dict[str, Case]:
    unknown = Encoding("zstd", b"\x00" * 100).describe()
    stranger = patch(weights(8000, 4), TARGET).describe()
    made: dict[str, tuple[Manifest, str]] = {
        "wrong-board/of-another-family": (plan(boards=["OMV4 H7"]), "wrong-board"),
        "wrong-board/name-in-lower-case": (plan(boards=["omvrt1060"]), "wrong-board"),
        "wrong-board/longer-than-ours": (plan(boards=["OMVRT1060 32768 SDRAM PLUS"]), "wrong-board"),
        "wrong-board/ours-at-the-end": (plan(boards=["X OMVRT1060"]), "wrong-board"),
        "wrong-board/a-star-among-letters": (plan(boards=["OMVRT*"]), "wrong-board"),
        "wrong-kind/firmware": (plan(kind="firmware"), "unsupported-kind"),
        "wrong-precursor/only-a-patch-on-what-it-has-not": (
            plan(encodings=[stranger]),
            "unsupported-encoding",
        ),
        "wrong-precursor/only-an-encoding-from-the-future": (
            plan(encodings=[unknown]),
            "unsupported-encoding",
        ),
        "too-large/for-a-slot": (content(size=12 << 20), "not-enough-storage"),
        "too-large/for-the-stage": (encoding(size=500_000), "not-enough-storage"),
        "fast-forward/the-next-epoch": (plan(epoch=2), "wrong-epoch"),
        "fast-forward/the-last-epoch": (plan(epoch=2**31 - 1, sequence=2**32 - 1), "wrong-epoch"),
    }
    return {name: (signed(one), "rejected", word) for name, (one, word) in made.items()}


MANIFESTS: Final[dict[str, Case]] = {
    **{f"arbitrary-software/{name}": case for name, case in _arbitrary_software().items()},
    **{f"malformed-metadata/{name}": case for name, case in _malformed().items()},
    **_not_for_this_camera(),
}
