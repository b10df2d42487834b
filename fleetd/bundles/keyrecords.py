"""Key records: made and signed on the operator's side, checked on fleetd's before any camera sees them."""

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from fleetd.bundles.errors import KeyFileError, KeyRecordError
from fleetd.bundles.signing import OperatorKey, check_public, open_signed
from fleetd.protocol.keyrecord import RECORD_BYTES, RECORD_MAGIC, KeyRecord


def make_record(
    key: OperatorKey, *, serial: int, epoch: int, created: int, keys: Sequence[str], recovery: Sequence[str]
) -> bytes:
    """The signed record. KeyRecordError when it cannot be one."""
    try:
        record = KeyRecord(
            format=1,
            serial=serial,
            epoch=epoch,
            created=created,
            keys=sorted(set(keys)),
            recovery=sorted(set(recovery)),
        )
    except ValidationError as error:
        raise KeyRecordError(_first(error)) from None
    return key.sign(record.model_dump_json(exclude_defaults=True).encode(), RECORD_MAGIC)


def check_record(blob: bytes, public_keys: Iterable[bytes]) -> KeyRecord:
    """The record, when one of these keys signed it. RejectedError or KeyRecordError otherwise."""
    if len(blob) > RECORD_BYTES:
        raise KeyRecordError(f"The key record has {len(blob)} bytes; a camera takes {RECORD_BYTES}.")
    payload = open_signed(blob, public_keys, RECORD_MAGIC)
    try:
        record = KeyRecord.model_validate_json(payload, strict=True)
        for public in (*record.keys, *record.recovery):
            check_public(bytes.fromhex(public))
    except ValidationError as error:
        raise KeyRecordError(_first(error)) from None
    except KeyFileError as error:
        raise KeyRecordError(f"A key in the record is no public key: {error}") from None
    return record


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"In the key record, {'.'.join(map(str, first['loc'])) or 'its keys'}: {first['msg']}."
