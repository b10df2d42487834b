"""/cameras/{name}/images: pictures that cameras sent, on command or of what they were not sure about."""

from typing import Annotated, Self

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from fleetd.domain.records import ImageFacts
from fleetd.web.inputs import CameraPath, Newest, WordPath
from fleetd.web.services import Operator, RegistryService, Viewer

router = APIRouter(prefix="/cameras", tags=["images"])


class ImageOut(BaseModel):
    """A picture that arrived in full. `why`: command or low-confidence."""

    image: str
    at: float
    size: int
    why: str
    label: str | None
    score: float | None
    release_id: str | None

    @classmethod
    def of(cls, facts: ImageFacts) -> Self:
        """The answer for one picture."""
        return cls(
            image=facts.image,
            at=facts.at,
            size=facts.size,
            why=facts.why,
            label=facts.label,
            score=facts.score,
            release_id=facts.release_id,
        )


@router.get("/{name}/images")
def list_images(
    name: CameraPath, registry: RegistryService, _: Viewer, newest: Annotated[Newest, Query()]
) -> list[ImageOut]:
    """The newest pictures of a camera. Fifty of each are kept."""
    return [ImageOut.of(facts) for facts in registry.images(name, limit=newest.limit)]


@router.get(
    "/{name}/images/{image}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}}
)
def image(name: CameraPath, image: WordPath, registry: RegistryService, _: Operator) -> Response:
    """One picture as a JPEG."""
    return Response(registry.image(name, image), media_type="image/jpeg")
