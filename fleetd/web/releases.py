"""/releases: upload a signed release, look at those that exist."""

import asyncio
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from fleetd.errors import UnavailableError
from fleetd.web.inputs import NewestQuery, ReleasePath
from fleetd.web.services import Operator, OtaService, Viewer
from fleetd.web.uploads import read_release

router = APIRouter(prefix="/releases", tags=["releases"])
CONTENTS_AT_ONCE: Final = 4  # of up to 16 MB each, in memory until they are sent

_UPLOAD_SCHEMA: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["manifest", "encodings"],
                    "properties": {
                        "manifest": {"type": "string", "format": "binary"},
                        "encodings": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}


class ReleaseOut(BaseModel):
    """A signed release."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: str
    name: str
    version: str
    epoch: int
    sequence: int
    key_id: str
    digest: str
    content_sha256: str
    content_size: int
    labels: list[str]
    uploaded_at: float
    uploaded_by: str


class NextReleaseOut(BaseModel):
    """What the next release has to be called and numbered to be accepted."""

    release: str
    epoch: int
    sequence: int


@router.get("")
def list_releases(ota: OtaService, _: Viewer, newest: NewestQuery) -> list[ReleaseOut]:
    """Releases, newest first within each kind."""
    return [ReleaseOut.model_validate(release) for release in ota.releases()[: newest.limit]]


@router.get("/next")
def next_release(
    ota: OtaService, _: Viewer, kind: Literal["model", "config", "agent"] = "model"
) -> NextReleaseOut:
    """The id, epoch and sequence number to sign into the next release of that kind."""
    release, epoch, sequence = ota.next_release(kind)
    return NextReleaseOut(release=release, epoch=epoch, sequence=sequence)


@router.post("", status_code=status.HTTP_201_CREATED, openapi_extra=_UPLOAD_SCHEMA)
async def upload(request: Request, ota: OtaService, actor: Operator) -> ReleaseOut:
    """Stores a signed release: multipart with one `manifest` and its `encodings`."""
    uploading = request.app.state.uploading
    if uploading.locked():  # one at a time, so that memory for one is enough
        raise UnavailableError("Another release is being uploaded. Nothing was changed; try again shortly.")
    async with uploading:
        manifest, encodings = await read_release(request)
        release = await run_in_threadpool(ota.add_release, manifest, encodings, actor=actor)
    return ReleaseOut.model_validate(release)


@router.get("/{release_id}")
def show(release_id: ReleasePath, ota: OtaService, _: Viewer) -> ReleaseOut:
    """One release."""
    return ReleaseOut.model_validate(ota.release(release_id))


@router.get(
    "/{release_id}/manifest",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def manifest(release_id: ReleasePath, ota: OtaService, _: Viewer) -> Response:
    """The signed manifest, byte for byte as cameras check it."""
    return Response(ota.manifest(release_id), media_type="application/octet-stream")


class _Held(Response):
    """An answer that gives its place back when it was sent, or cannot be."""

    def __init__(self, content: bytes, places: asyncio.Semaphore) -> None:
        super().__init__(content, media_type="application/octet-stream")
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


@router.get(
    "/{release_id}/content",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def content(request: Request, release_id: ReleasePath, ota: OtaService, _: Operator) -> Response:
    """What lies in the slot of a camera that runs the release: bytes with the digest `content_sha256`."""
    places: asyncio.Semaphore = request.app.state.unpacking
    if places.locked():
        raise UnavailableError("Other contents are being fetched. Nothing was changed; try again shortly.")
    await places.acquire()
    try:
        held = _Held(await run_in_threadpool(ota.content, release_id), places)
    except BaseException:
        places.release()
        raise
    return held
