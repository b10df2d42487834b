"""Proof that what a camera hears is the newest: fleetd answers the nonce in its status on `down/fresh`.

The answer carries an HMAC-SHA256 with a key that only fleetd and the camera know: not the credential, which the
broker sees. It covers the text

    fleetd-fresh-1|<camera>|<nonce>|<t>|<generation>|<keys>
"""

import hashlib
import hmac
from typing import Final

KEY_BYTES: Final = 32


def answer_mac(key: bytes, camera: str, nonce: str, t: int, generation: int, keys: int) -> str:
    """The `mac` of an answer, in hex. `t`: Unix seconds; `keys`: the newest key record's number, 0 for none."""
    text = f"fleetd-fresh-1|{camera}|{nonce}|{t}|{generation}|{keys}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
