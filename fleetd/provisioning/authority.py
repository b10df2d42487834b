"""The certificate of the CA that signed the broker's: from a file as tools write it to what a camera reads."""

import base64
import binascii
import re
import ssl
from typing import Final

from camera_agent.clock import FLOOR
from fleetd.provisioning.errors import ConfigRefusedError

MOST_BYTES: Final = 64 * 1024
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def read_ca(data: bytes, *, has_clock: bool) -> tuple[str, list[str]]:
    """One CA certificate, PEM or DER, as base64 of its DER, and what to know about it. ConfigRefusedError.

    `has_clock`: whether the camera asks a time server.
    """
    if len(data) > MOST_BYTES:
        raise ConfigRefusedError("The CA's file is too large for a certificate. Nothing was written.")
    der = data
    if b"-----BEGIN" in data:
        found = _PEM.findall(data)
        if len(found) != 1:
            raise ConfigRefusedError(
                f"The CA's file holds {len(found)} certificates; a camera takes exactly one. Nothing was written."
            )
        try:
            der = base64.b64decode(b"".join(found[0].split()), validate=True)
        except binascii.Error:
            der = b""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigRefusedError("The CA's file is no certificate. Nothing was written.") from error
    known = context.get_ca_certs()
    if not known:
        raise ConfigRefusedError(
            "The certificate is not a CA's: give the one that signed the broker's, not the broker's own. "
            "Nothing was written."
        )
    warnings = []
    if ssl.cert_time_to_seconds(str(known[0]["notBefore"])) > FLOOR and not has_clock:
        warnings.append(
            "The CA is valid only from a date that a camera without a clock has not reached: it connects once a "
            "time server has told it the time. Add --set ntp=SERVER, or use a back-dated CA."
        )
    return base64.b64encode(der).decode(), warnings
