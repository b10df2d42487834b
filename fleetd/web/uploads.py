"""Reading an uploaded release: one `manifest` part, then up to 16 `encodings` parts.

The body is parsed while it arrives and each part has its own ceiling, so nothing is ever larger in memory
than what may be stored anyway. Part names are compared and file names ignored: neither becomes a path.
"""

from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from fleetd.protocol.limits import MANIFEST_BYTES
from fleetd.web.errors import MalformedError, TooLargeError
from fleetd.web.gate import ENCODING_BYTES, ENCODINGS

HEADER_BYTES: Final = 1024  # of one part
BOUNDARY_BYTES: Final = 70  # RFC 2046


async def read_release(request: Request) -> tuple[bytes, list[bytes]]:
    """The signed manifest and the encodings in an upload; MalformedError or TooLargeError."""
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= BOUNDARY_BYTES:
        raise MalformedError("The multipart boundary is missing or too long. Nothing was changed.")
    parts = _Parts()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.begin,
            "on_header_field": parts.header_field,
            "on_header_value": parts.header_value,
            "on_header_end": parts.header_end,
            "on_headers_finished": parts.headers_finished,
            "on_part_data": parts.data,
            "on_part_end": parts.end,
            "on_end": parts.finish,
        },
    )
    try:
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise MalformedError(
            f"The upload is not valid multipart data: {error}. Nothing was changed."
        ) from error
    return parts.release()


class _Parts:
    """Collects parts as the parser finds them; raises as soon as one breaks a rule."""

    def __init__(self) -> None:
        self._manifest: bytes | None = None
        self._encodings: list[bytes] = []
        self._complete = False
        self._header = bytearray(), bytearray()
        self._header_bytes = 0
        self._name = ""
        self._data = bytearray()
        self._limit = 0

    def release(self) -> tuple[bytes, list[bytes]]:
        """Everything that was found, if it is whole."""
        if not self._complete:
            raise MalformedError("The upload ended before its last boundary. Nothing was changed; try again.")
        if self._manifest is None or not self._encodings:
            raise MalformedError(
                "An upload needs one `manifest` part and at least one `encodings` part. Nothing was changed."
            )
        return self._manifest, self._encodings

    def begin(self) -> None:
        """A part starts."""
        self._header = bytearray(), bytearray()
        self._header_bytes = 0
        self._name = ""
        self._data = bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """More of a header's name."""
        self._grow_header(0, data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """More of a header's value."""
        self._grow_header(1, data[start:end])

    def header_end(self) -> None:
        """A header is complete: only the one that names the part matters."""
        field, value = self._header
        if field.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(value))
            self._name = options.get(b"name", b"").decode("ascii", "replace")
        self._header = bytearray(), bytearray()

    def headers_finished(self) -> None:
        """The part is named: may it come, and how long may it be."""
        if self._name == "manifest" and self._manifest is None:
            self._limit = MANIFEST_BYTES
        elif self._name == "encodings":
            if len(self._encodings) == ENCODINGS:
                raise TooLargeError("An upload may have 16 encodings at most. Nothing was changed.")
            self._limit = ENCODING_BYTES
        else:
            raise MalformedError(
                "An upload has one `manifest` part and `encodings` parts, nothing else. Nothing was changed.",
                part=self._name,
            )

    def data(self, data: bytes, start: int, end: int) -> None:
        """More of the part's bytes."""
        if len(self._data) + end - start > self._limit:
            raise TooLargeError(
                f"The part {self._name!r} is larger than {self._limit} bytes. Nothing was changed.",
                part=self._name,
                limit=self._limit,
            )
        self._data += data[start:end]

    def end(self) -> None:
        """The part is complete."""
        if self._name == "manifest":
            self._manifest = bytes(self._data)
        else:
            self._encodings.append(bytes(self._data))
        self._data = bytearray()

    def finish(self) -> None:
        """The last boundary was seen."""
        self._complete = True

    def _grow_header(self, side: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            raise TooLargeError("The header of a part is too large. Nothing was changed.", limit=HEADER_BYTES)
        self._header[side].extend(data)
