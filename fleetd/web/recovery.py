"""/cameras/{name}/diagnosis, timeline and recoveries: from a silent camera to one that reports."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import APIRouter, Path, Query, status
from pydantic import BaseModel

from fleetd.boards.guides import Command, Guide, Step
from fleetd.boards.guides.drawing import svg, terminal
from fleetd.boards.shape import BoardProfile
from fleetd.boards.usb import UsbState
from fleetd.domain.recovery import Recovery
from fleetd.evidence import causes_of
from fleetd.recovery import Diagnosed, Way
from fleetd.web.incidents import CauseOut
from fleetd.web.inputs import Body, CameraId, CameraPath, Line, Newest, ShortLine, SinceQuery
from fleetd.web.services import Operator, RecoveryServices, Viewer

router = APIRouter(tags=["recovery"])

RecoveryPath = Annotated[int, Path(ge=1, le=2**31 - 1, description="The recovery's number.")]


class GuideOut(BaseModel):
    """A guide, without its steps."""

    key: str
    title: str
    board: str
    minutes: tuple[int, int]

    @classmethod
    def of(cls, guide: Guide, board: BoardProfile) -> Self:
        """The answer for one."""
        return cls(key=guide.key, title=guide.title, board=board.name, minutes=guide.minutes)


class CommandOut(BaseModel):
    """A command line; words in braces stand for files."""

    argv: list[str]
    does: str
    timeout_s: int
    may_fail: bool
    optional: bool
    then: str | None
    files: list[str]

    @classmethod
    def of(cls, command: Command) -> Self:
        """The answer for one."""
        return cls(
            argv=list(command.argv),
            does=command.does,
            timeout_s=command.timeout_s,
            may_fail=command.may_fail,
            optional=command.optional,
            then=command.then,
            files=list(command.files),
        )


class ChoiceOut(BaseModel):
    """An answer and what it means."""

    answer: str
    words: str


class StepOut(BaseModel):
    """A step of a guide. `drawing` is for a terminal, `drawing_svg` for a page; `ahead`: the commands that have to
    follow at once when this step succeeds, to be got ready before it begins.
    """

    id: str
    kind: str
    title: str
    say: list[str]
    expect: str
    if_not_say: str
    choices: list[ChoiceOut]
    commands: list[CommandOut]
    ahead: list[CommandOut]
    usb: list[str]
    timeout_s: int
    ide: list[str]
    risk: str
    drawing: list[str]
    drawing_svg: str | None

    @classmethod
    def of(cls, step: Step, board: BoardProfile, guide: Guide) -> Self:
        """The answer for one."""
        following = guide.step(step.then) if step.kind == "usb" else None
        return cls(
            id=step.id,
            kind=step.kind,
            title=step.title,
            say=list(step.say),
            expect=step.expect,
            if_not_say=step.if_not_say,
            choices=[ChoiceOut(answer=answer, words=words) for answer, words, _ in step.choices],
            commands=[CommandOut.of(one) for one in step.commands],
            ahead=[CommandOut.of(one) for one in (following.commands if following else ())],
            usb=list(step.usb),
            timeout_s=step.timeout_s,
            ide=list(step.ide),
            risk=step.risk or (following.risk if following is not None and following.commands else ""),
            drawing=list(terminal(board)) if step.has_drawing else [],
            drawing_svg=svg(board) if step.has_drawing else None,
        )


class DiagnosisOut(BaseModel):
    """What may be wrong, most likely first, and the guide for that."""

    camera: str
    board: str
    presence: str
    silent_s: float | None
    causes: list[CauseOut]
    guide: GuideOut
    steps: list[StepOut]

    @classmethod
    def of(cls, found: Diagnosed) -> Self:
        """The answer for one."""
        facts = found.facts
        return cls(
            camera=facts.camera.name,
            board=found.board.key,
            presence=str(facts.clues.presence),
            silent_s=facts.clues.silent_s,
            causes=[CauseOut.model_validate(one) for one in causes_of(facts.findings)],
            guide=GuideOut.of(found.guide, found.board),
            steps=[StepOut.of(step, found.board, found.guide) for step in found.guide.steps],
        )


class RecoveryOut(BaseModel):
    """A recovery and how far it is."""

    id: int
    camera: str
    incident: int | None
    board: str
    state: str
    cause: str
    causes: list[CauseOut]
    step_id: str
    log: list[Mapping[str, Any]]
    created_at: float
    created_by: str
    changed_at: float
    finished_at: float | None

    @classmethod
    def values(cls, recovery: Recovery) -> dict[str, Any]:
        """The fields of one."""
        return {
            "id": recovery.id,
            "camera": recovery.camera,
            "incident": recovery.incident_id,
            "board": recovery.board,
            "state": recovery.state,
            "cause": recovery.cause,
            "causes": [CauseOut.model_validate(one) for one in recovery.causes],
            "step_id": recovery.step,
            "log": list(recovery.log),
            "created_at": recovery.created_at,
            "created_by": recovery.created_by,
            "changed_at": recovery.changed_at,
            "finished_at": recovery.finished_at,
        }


class WayOut(RecoveryOut):
    """A recovery with its present step. `is_back`: the camera has reported since that step began."""

    guide: GuideOut
    step: StepOut
    is_back: bool

    @classmethod
    def of(cls, way: Way) -> Self:
        """The answer for one."""
        return cls(
            **cls.values(way.recovery),
            guide=GuideOut.of(way.guide, way.board),
            step=StepOut.of(way.step, way.board, way.guide),
            is_back=way.is_back,
        )


class MomentOut(BaseModel):
    """Something that happened to a camera."""

    at: float
    kind: str
    text: str


class StartIn(Body):
    """What USB shows, if somebody has looked; a guide, to skip the diagnosis; whether to begin anew."""

    usb: UsbState = "unknown"
    guide: ShortLine | None = None
    restart: bool = False


class OutcomeIn(Body):
    """What became of a step: `ok`, `failed`, or an answer."""

    step: ShortLine
    outcome: ShortLine
    detail: Line = ""
    usb: UsbState = "unknown"


class RecoveryQuery(Newest):
    """Which recoveries."""

    camera: CameraId | None = None


@router.get("/cameras/{name}/diagnosis")
def diagnosis(
    name: CameraPath,
    recovery: RecoveryServices,
    _: Viewer,
    usb: Annotated[UsbState, Query(description="What USB shows.")] = "unknown",
    guide: Annotated[ShortLine | None, Query(description="Another guide than the likeliest cause's.")] = None,
) -> DiagnosisOut:
    """What may be wrong with a camera, with the evidence, and every step of the guide for the likeliest cause."""
    return DiagnosisOut.of(recovery.diagnose(name, usb=usb, guide=guide))


@router.get("/cameras/{name}/timeline")
def timeline(name: CameraPath, recovery: RecoveryServices, _: Viewer, newest: SinceQuery) -> list[MomentOut]:
    """Starts, silences, lights, updates, events and incidents of a camera, newest first."""
    found = recovery.timeline(name, since=newest.since, limit=newest.limit)
    return [MomentOut(at=one.at, kind=one.kind, text=one.text) for one in found]


@router.post("/cameras/{name}/recoveries", status_code=status.HTTP_201_CREATED)
def start(
    name: CameraPath, recovery: RecoveryServices, actor: Operator, body: StartIn | None = None
) -> WayOut:
    """Begins to bring a camera back, or goes on where somebody stopped."""
    wanted = body or StartIn()
    return WayOut.of(
        recovery.start(name, usb=wanted.usb, guide=wanted.guide, restart=wanted.restart, actor=actor)
    )


@router.get("/recoveries")
def list_recoveries(
    recovery: RecoveryServices, _: Viewer, query: Annotated[RecoveryQuery, Query()]
) -> list[RecoveryOut]:
    """Recoveries, newest first."""
    found = recovery.recoveries(query.camera, limit=query.limit)
    return [RecoveryOut(**RecoveryOut.values(one)) for one in found]


@router.get("/recoveries/{recovery_id}")
def show(recovery_id: RecoveryPath, recovery: RecoveryServices, _: Viewer) -> WayOut:
    """One with its present step."""
    return WayOut.of(recovery.recovery(recovery_id))


@router.post("/recoveries/{recovery_id}/outcomes")
def report(recovery_id: RecoveryPath, body: OutcomeIn, recovery: RecoveryServices, actor: Operator) -> WayOut:
    """Says what became of the present step, and answers the next one."""
    return WayOut.of(
        recovery.report(recovery_id, body.step, body.outcome, detail=body.detail, usb=body.usb, actor=actor)
    )


@router.post("/recoveries/{recovery_id}/abandon", status_code=status.HTTP_204_NO_CONTENT)
def abandon(recovery_id: RecoveryPath, recovery: RecoveryServices, actor: Operator) -> None:
    """Ends it without an outcome."""
    recovery.abandon(recovery_id, actor=actor)
