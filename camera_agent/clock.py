"""Sets the board's clock: from a time server, or at least to a date that is not absurd.

    ask("10.0.0.2", machine, 1000)     # OSError: no answer, or not a time
    floor(machine)                     # 1970 and 2000 become 2026, so that certificates are valid

A datagram socket with recvfrom(), because the WINC driver knows nothing else. The answer has to repeat a random number
of the question, so that nobody sets the clock who did not see the question.

RAM BUDGET: 2 KB of code, loaded when the clock is to be set; two buffers of 48 bytes.
"""

import os
import socket
import time

from camera_agent.heap import const

FLOOR = const(1_767_225_600)  # 2026-01-01: this code is no older
_LATEST = const(4_102_444_800)  # 2100-01-01
_UNIX_1900 = const(2_208_988_800)
_UNIX_2000 = const(946_684_800)
_ERA = const(1 << 32)
_PORT = const(123)


def offset():
    """What this port's seconds are short of Unix seconds."""
    return _UNIX_2000 if time.gmtime(0)[0] == 2000 else 0


def ask(server, machine, timeout_ms):
    """Set the clock from this server. Raises OSError."""
    address = socket.getaddrinfo(server, _PORT)[0][-1]
    question = bytearray(48)
    question[0] = 0x23  # version 4, client
    mark = os.urandom(8)
    question[40:] = mark
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(timeout_ms / 1000)
        sock.sendto(question, address)
        answer = sock.recvfrom(48)[0]
    finally:
        sock.close()
    unix = read(answer, mark)
    if unix is None:
        raise OSError("no time from " + server)
    set_clock(machine, unix)


def read(answer, mark):
    """Unix seconds in an answer to the question with this mark, or None."""
    if len(answer) < 48 or answer[0] & 7 != 4 or not 0 < answer[1] < 16 or bytes(answer[24:32]) != mark:
        return None
    seconds = 0
    for byte in answer[40:44]:
        seconds = seconds << 8 | byte
    unix = seconds - _UNIX_1900
    if unix < FLOOR:
        unix += _ERA  # the counter begins anew in 2036
    return unix if FLOOR <= unix < _LATEST else None


def floor(machine):
    """Move a clock that is behind the age of this code forward. Never raises."""
    try:
        if time.time() + offset() < FLOOR:
            set_clock(machine, FLOOR)
    except Exception:
        pass  # no such clock: certificates are looked at with whatever there is


def set_clock(machine, unix):
    """Set the board's clock."""
    at = time.gmtime(unix - offset())
    machine.RTC().datetime((at[0], at[1], at[2], at[6] + 1, at[3], at[4], at[5], 0))
