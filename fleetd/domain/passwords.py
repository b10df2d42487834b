"""How a credential is stored: in mosquitto's own form, so that its password file can be written at any time
without the credential itself.

Credentials are 160 random bits, which nobody guesses; few rounds are enough, and ten thousand cameras that
reconnect at once do not keep the broker busy with hashing.
"""

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

ROUNDS: Final = 101  # what mosquitto_passwd takes
SALT_BYTES: Final = 12  # mosquitto skips an account whose salt has another length
_FORM = re.compile(r"\$7\$([0-9]{1,7})\$([A-Za-z0-9+/=]{1,120})\$([A-Za-z0-9+/=]{88})")


def password_hash(secret: str, salt: bytes) -> str:
    """`$7$<rounds>$<salt>$<PBKDF2-SHA512>`, as mosquitto 2.0 and later read it. The salt has SALT_BYTES."""
    if len(salt) != SALT_BYTES:
        raise ValueError("mosquitto would skip this account")
    found = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(found).decode()}"


def is_password(secret: bytes, stored: str) -> bool:
    """Whether `stored` was made of this credential. A stored text of another form matches nothing."""
    found = _FORM.fullmatch(stored)
    if found is None or int(found[1]) < 1:
        return False
    try:
        salt, wanted = base64.b64decode(found[2], validate=True), base64.b64decode(found[3], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(hashlib.pbkdf2_hmac("sha512", secret, salt, int(found[1])), wanted)
