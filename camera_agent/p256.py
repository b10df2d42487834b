"""The curve P-256 as far as camera_agent/crypto.py needs it to verify a signature.

RAM BUDGET: 2 KB of code, loaded when a signature is checked.
"""

from camera_agent.heap import const

_PRIME = const(0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF)
_ORDER = const(0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551)
_B = const(0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B)
_GX = const(0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296)
_GY = const(0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def verify(public_key, signature, digest):
    """See crypto.verify; the lengths are right."""
    qx = int.from_bytes(bytes(public_key[:32]), "big")
    qy = int.from_bytes(bytes(public_key[32:]), "big")
    r = int.from_bytes(bytes(signature[:32]), "big")
    s = int.from_bytes(bytes(signature[32:]), "big")
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        return False
    if not (0 <= qx < _PRIME and 0 <= qy < _PRIME) or not _on_curve(qx, qy):
        return False
    w = _inverse(s, _ORDER)
    u = int.from_bytes(bytes(digest), "big") * w % _ORDER
    v = r * w % _ORDER
    x, _y, z = _sum_of_multiples(u, v, qx, qy)
    if z == 0:
        return False  # the point at infinity has no x
    zz = z * z % _PRIME
    # x / z^2 == r (mod order), without the division: the affine x is r or, below the prime, r + order
    return (x - r * zz) % _PRIME == 0 or (r + _ORDER < _PRIME and (x - (r + _ORDER) * zz) % _PRIME == 0)


def _on_curve(x, y):
    return (y * y - x * x * x + 3 * x - _B) % _PRIME == 0


def _inverse(number, modulus):
    """The inverse by Euclid's algorithm (three-argument pow is not on every board, and slower)."""
    low, high = number % modulus, modulus
    factor, last = 1, 0
    while low > 1:
        quotient = high // low
        high, low = low, high - quotient * low
        last, factor = factor, last - quotient * factor
    return factor % modulus


def _double(x, y, z):
    """2P in Jacobian coordinates for a = -3. Infinity is z == 0 and stays so. No point of P-256 has y == 0."""
    yy = y * y % _PRIME
    beta = x * yy % _PRIME
    zz = z * z % _PRIME
    alpha = 3 * (x - zz) * (x + zz) % _PRIME
    x3 = (alpha * alpha - 8 * beta) % _PRIME
    return x3, (alpha * (4 * beta - x3) - 8 * yy * yy) % _PRIME, 2 * y * z % _PRIME


def _add(x, y, z, ax, ay):
    """(x, y, z) + the affine point (ax, ay), every special case included."""
    if z == 0:
        return ax, ay, 1
    zz = z * z % _PRIME
    h = (ax * zz - x) % _PRIME
    rise = (ay * z * zz - y) % _PRIME
    if h == 0:
        return _double(x, y, z) if rise == 0 else (1, 1, 0)
    hh = h * h % _PRIME
    hhh = h * hh % _PRIME
    v = x * hh % _PRIME
    x3 = (rise * rise - hhh - 2 * v) % _PRIME
    return x3, (rise * (v - x3) - y * hhh) % _PRIME, z * h % _PRIME


def _sum_of_multiples(u, v, qx, qy):
    """u * G + v * Q with one shared run of doublings (Shamir's trick), in Jacobian coordinates."""
    x, y, z = _add(_GX, _GY, 1, qx, qy)
    both = None  # G + Q as an affine point; None when Q is -G
    if z:
        i = _inverse(z, _PRIME)
        ii = i * i % _PRIME
        both = (x * ii % _PRIME, y * ii * i % _PRIME)
    x, y, z = 1, 1, 0
    # bytes instead of shifts: no 256-bit temporary for every bit
    u_bytes = u.to_bytes(32, "big")
    v_bytes = v.to_bytes(32, "big")
    for n in range(32):
        u_byte = u_bytes[n]
        v_byte = v_bytes[n]
        bit = 128
        while bit:
            x, y, z = _double(x, y, z)
            if u_byte & bit and v_byte & bit:
                if both:
                    x, y, z = _add(x, y, z, both[0], both[1])
            elif u_byte & bit:
                x, y, z = _add(x, y, z, _GX, _GY)
            elif v_byte & bit:
                x, y, z = _add(x, y, z, qx, qy)
            bit >>= 1
    return x, y, z
