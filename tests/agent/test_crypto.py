"""ES256 verification against `cryptography`, with vectors made to break naive implementations."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from camera_agent import crypto
from tests.agent.micropython import Arch, run_device

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
DEVICE = Path(__file__).parent / "device" / "check_crypto.py"


class Vector(NamedTuple):
    name: str
    key: bytes
    signature: bytes
    digest: bytes
    genuine: bool


Point = tuple[int, int] | None


def add(a: Point, b: Point) -> Point:
    """Textbook affine addition, to build keys and signatures that no signer would make."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    rise = (3 * a[0] ** 2 - 3, 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = rise[0] * pow(rise[1], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(k: int, point: Point) -> Point:
    total: Point = None
    while k:
        if k & 1:
            total = add(total, point)
        point = add(point, point)
        k >>= 1
    return total


def raw(point: Point) -> bytes:
    assert point is not None
    return pair(*point)


def pair(a: int, b: int) -> bytes:
    return a.to_bytes(32, "big") + b.to_bytes(32, "big")


def private(secret: int) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.derive_private_key(secret, ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    return key, pair(numbers.x, numbers.y)


def sign(key: ec.EllipticCurvePrivateKey, digest: bytes) -> tuple[int, int]:
    return decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))


G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
DIGEST = hashlib.sha256(b"a model").digest()
SECRET = 0xC0FFEE1234567890C0FFEE1234567890C0FFEE1234567890C0FFEE1234567890


def openssl_says(vector: Vector) -> bool:
    try:
        public = ec.EllipticCurvePublicNumbers(
            int.from_bytes(vector.key[:32], "big"), int.from_bytes(vector.key[32:], "big"), ec.SECP256R1()
        ).public_key()
        r, s = (int.from_bytes(half, "big") for half in (vector.signature[:32], vector.signature[32:]))
        public.verify(encode_dss_signature(r, s), vector.digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except (InvalidSignature, ValueError):
        return False
    return True


def small_x_point() -> tuple[int, int]:
    """A point whose x still fits into 32 bytes when the prime is added."""
    return next(points(range(1, 1000)))


def large_x_point() -> tuple[int, int]:
    """A point whose x is above the order, so that r is x - N."""
    return next(points(range(N, P)))


def points(candidates: range) -> Iterator[tuple[int, int]]:
    for x in candidates:
        square = (x**3 - 3 * x + B) % P
        y = pow(square, (P + 1) // 4, P)
        if y * y % P == square:
            yield x, y


def key_for(point: Point, r: int, s: int, e: int) -> Point:
    """The public key for which (r, s) over e leads to `point`: (s * point - e * G) / r."""
    inverse = pow(r, -1, N)
    return add(times(s * inverse % N, point), times(-e * inverse % N, G))


def vectors() -> Iterator[Vector]:
    key, public = private(SECRET)
    r, s = sign(key, DIGEST)
    yield Vector("plain", public, pair(r, s), DIGEST, True)
    yield Vector("the other s", public, pair(r, N - s), DIGEST, True)
    for name, bad_r, bad_s in (
        ("r zero", 0, s),
        ("s zero", r, 0),
        ("both zero", 0, 0),
        ("r order", N, s),
        ("s order", r, N),
        ("r one more than the order", N + 1, s),
        ("s one more than the order", r, N + 1),
        ("r prime", P, s),
        ("r and s swapped", s, r),
        ("r negated", N - r, s),
        ("r one", 1, s),
        ("s one", r, 1),
        ("both one", 1, 1),
        ("all bits", 2**256 - 1, 2**256 - 1),
        ("r below the order", N - 1, s),
        ("r plus order, if it fits", (r + N) % 2**256, s),
    ):
        yield Vector(name, public, pair(bad_r, bad_s), DIGEST, False)
    yield Vector("another message", public, pair(r, s), hashlib.sha256(b"another").digest(), False)
    yield Vector("another key", private(SECRET + 1)[1], pair(r, s), DIGEST, False)
    x, y = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
    for name, bad_x, bad_y in (
        ("key not on the curve", x, y ^ 1),
        ("key negated", x, P - y),
        ("key zero", 0, 0),
        ("key x is the prime", P, y),
        ("key y is the prime", x, P),
        ("key y beyond the prime", x, min(y + P, 2**256 - 1)),
        ("key halves swapped", y, x),
    ):
        yield Vector(name, pair(bad_x, bad_y), pair(r, s), DIGEST, False)
    # small and large secrets: u*G and v*Q meet, double and cancel on the way
    for secret in (1, 2, 3, 4, 7, N - 1, N - 2, N - 3, (N + 1) // 2, 1 << 255, (1 << 128) - 1):
        small, small_public = private(secret)
        for digest in (bytes(32), b"\xff" * 32, N.to_bytes(32, "big"), (1).to_bytes(32, "big"), DIGEST):
            small_r, small_s = sign(small, digest)
            name = f"secret {secret:x}, digest {digest.hex()[:4]}"
            yield Vector(name, small_public, pair(small_r, small_s), digest, True)
            yield Vector(name + " r off by one", small_public, pair(small_r - 1, small_s), digest, False)
    # chosen multipliers: the sum is infinity, or a doubling inside the addition
    for secret in (1, 2, 5, N - 1):
        public_point = times(secret, G)
        for u, v in ((1, 1), (2, 1), (1, 2), (3, 5), (N - secret, 1), (secret, N - 1), (secret, 1), (0, 1)):
            v_point = times(v, public_point)
            total = add(times(u, G), v_point)
            chosen_r = (total[0] if total else 1) % N
            chosen_s = chosen_r * pow(v, -1, N) % N
            digest = (u * chosen_s % N).to_bytes(32, "big")
            name = f"secret {secret:x}: {u:x} G + {v:x} Q"
            yield Vector(name, raw(public_point), pair(chosen_r, chosen_s), digest, total is not None)
    # x of the point above the order: r = x - order
    large = large_x_point()
    e = int.from_bytes(DIGEST, "big")
    for s in (1, 12345, N - 1):
        r = large[0] - N
        yield Vector(f"x above the order, s {s:x}", raw(key_for(large, r, s, e)), pair(r, s), DIGEST, True)
        yield Vector("x itself as r", raw(key_for(large, r, s, e)), pair(large[0], s), DIGEST, False)
    # with a digest of zero, r = s = x of the key verifies for any key: what is left are the checks of the key
    x, y = int.from_bytes(public[:32], "big"), int.from_bytes(public[32:], "big")
    yield Vector("zero digest", public, pair(x % N, x % N), bytes(32), True)
    yield Vector("zero digest, key off the curve", pair(x, y ^ 1), pair(x % N, x % N), bytes(32), False)
    # r + order taken modulo the prime is x, but it is not below the prime
    small_x = small_x_point()
    wrapped = small_x[0] + P - N
    yield Vector("r wraps", raw(key_for(small_x, wrapped, 7, e)), pair(wrapped, 7), DIGEST, False)
    # r + order is below the prime, yet the point's x is neither
    near = add(large, G)
    yield Vector("near r", raw(key_for(near, r, 3, e)), pair(r, 3), DIGEST, False)


VECTORS = list(vectors())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_hard_vectors_are_judged_as_openssl_does(vector: Vector) -> None:
    assert openssl_says(vector) == vector.genuine, "the vector itself is not what its name says"
    assert crypto.verify(vector.key, vector.signature, vector.digest) is vector.genuine


def test_a_key_whose_x_is_not_reduced_is_refused() -> None:
    """OpenSSL reduces it; we hold that a key has one spelling, because its id is a hash of its bytes."""
    x, y = small_x_point()
    assert crypto.verify(pair(x, y), pair(x, x), bytes(32))
    assert not crypto.verify(pair(x + P, y), pair(x, x), bytes(32))


def test_signatures_of_many_keys_verify_and_do_not_verify_for_each_other() -> None:
    made = []
    for n in range(20):
        key, public = private(hash_number(n))
        digest = hashlib.sha256(bytes([n])).digest()
        made.append((public, pair(*sign(key, digest)), digest))
    for n, (public, signature, digest) in enumerate(made):
        assert crypto.verify(public, signature, digest)
        assert not crypto.verify(made[n - 1][0], signature, digest)


def hash_number(n: int) -> int:
    return int.from_bytes(hashlib.sha256(b"secret %d" % n).digest(), "big") % (N - 1) + 1


def test_no_single_flipped_bit_in_signature_digest_or_key_is_accepted() -> None:
    plain = VECTORS[0]
    message = plain.signature + plain.digest + plain.key
    accepted = []
    for bit in range(len(message) * 8):
        flipped = bytearray(message)
        flipped[bit // 8] ^= 1 << bit % 8
        if crypto.verify(flipped[96:], flipped[:64], flipped[64:96]):
            accepted.append(bit)
    assert accepted == []


@pytest.mark.parametrize(
    ("key", "signature", "digest"), [(63, 64, 32), (64, 63, 32), (64, 64, 31), (0, 0, 0)]
)
def test_wrong_lengths_are_refused(key: int, signature: int, digest: int) -> None:
    assert crypto.verify(bytes(key), bytes(signature), bytes(digest)) is False


def test_memoryviews_and_bytearrays_are_accepted() -> None:
    plain = VECTORS[0]
    assert crypto.verify(memoryview(plain.key), bytearray(plain.signature), memoryview(plain.digest))


def test_a_key_is_found_by_its_id() -> None:
    public = VECTORS[0].key
    assert crypto.key_id(public) == hashlib.sha256(public).digest()[:8]
    assert crypto.keyring([public]) == {crypto.key_id(public): public}
    with pytest.raises(ValueError, match="64 bytes"):
        crypto.keyring([public[:63]])


def test_hex_is_what_everyone_writes() -> None:
    assert crypto.hexed(bytes(range(256))) == bytes(range(256)).hex()
    assert crypto.sha256(b"abc") == hashlib.sha256(b"abc").digest()


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_micropython_judges_the_same(arch: Arch, tmp_path: Path) -> None:
    plain = VECTORS[0]
    chosen = list(VECTORS)
    for bit in range(0, 96 * 8, 16):
        flipped = bytearray(plain.signature + plain.digest)
        flipped[bit // 8] ^= 1 << bit % 8
        chosen.append(Vector(f"bit {bit}", plain.key, bytes(flipped[:64]), bytes(flipped[64:]), False))
    lines = [f"{v.key.hex()} {v.signature.hex()} {v.digest.hex()} {v.genuine:d}" for v in chosen]
    file = tmp_path / "vectors"
    file.write_text("\n".join(lines))
    done = run_device(arch, DEVICE, str(file), heapsize="64k")
    assert done.stdout.split()[:2] == ["judged", str(len(chosen))], done.stdout
