"""What a guide is made of: steps that a person or `fleetctl recover` goes through, one after the other.

A guide is a machine. Every step says what to do or to look at, what should be seen then, and which step comes next
when it was and when it was not. The same steps serve the terminal, the documents and, later, a web page.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from fleetd.boards.shape import Data
from fleetd.boards.usb import UsbState

Kind = Literal[
    "do",  # a person does something with their hands
    "ask",  # a person answers a question: one of `choices`
    "usb",  # wait until USB shows one of `usb`
    "run",  # commands
    "provision",  # agent, settings and identity onto the drive
    "back",  # wait until the camera itself reports
    "done",  # it is back
    "stop",  # this guide knows nothing further; it says what is left
]
Outcome = Literal["ok", "failed"]


class Command(Data):
    """One command line. `{firmware}` and the like stand for files, `{len:firmware}` for a length in hex."""

    argv: tuple[str, ...] = Field(min_length=1)
    does: str
    timeout_s: int = 180
    may_fail: bool = False  # its exit code says nothing
    optional: bool = False  # left out when its file is not there
    then: UsbState | None = None  # what USB shows afterwards, if that changes

    @property
    def files(self) -> tuple[str, ...]:
        """The roles of the files that it reads, e.g. "firmware"."""
        found = (part[1:-1].removeprefix("len:") for part in self.argv if part.startswith("{"))
        return tuple(dict.fromkeys(found))

    def line(self) -> str:
        """As one would type it, placeholders as they are."""
        return " ".join(self.argv)


class Step(Data):
    """One step. `then` follows when it worked, `if_not` when not."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    kind: Kind
    title: str
    say: tuple[str, ...] = ()  # what to do, a sentence each
    expect: str = ""
    if_not_say: str = ""
    then: str = ""
    if_not: str = ""
    choices: tuple[tuple[str, str, str], ...] = ()  # answer, in words, next step
    commands: tuple[Command, ...] = ()
    usb: tuple[UsbState, ...] = ()
    timeout_s: int = 0
    ide: tuple[str, ...] = ()  # the same in OpenMV IDE
    risk: str = ""
    has_drawing: bool = False  # guides/drawing.py draws what is bridged
    power: Literal["off", "on"] | None = None  # what the person does to the board's power
    bridge: Literal["in", "out"] | None = None  # ... and to the recovery bridge or switch

    def following(self, outcome: str) -> str | None:
        """The next step's id for an outcome or an answer; None when the step has no such outcome."""
        if self.kind == "ask":
            return next((target for answer, _, target in self.choices if answer == outcome), None)
        return {"ok": self.then, "failed": self.if_not}.get(outcome) or None


class Guide(Data):
    """A way back for one board, from one rung of the ladder on."""

    board: str
    key: str
    title: str
    minutes: tuple[int, int]
    steps: tuple[Step, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        ids = [step.id for step in self.steps]
        if len(set(ids)) != len(ids):
            raise ValueError(f"{self.key}: a step stands there twice")
        for step in self.steps:
            ends = step.kind in ("done", "stop")
            nexts = (
                [target for _, _, target in step.choices] if step.kind == "ask" else [step.then, step.if_not]
            )
            if not ends and (not all(nexts) or not set(nexts) <= set(ids)):
                raise ValueError(f"{self.key}: {step.id} leads to {nexts}, which are not all steps")
        return self

    @property
    def first(self) -> Step:
        """Where it begins."""
        return self.steps[0]

    def step(self, step_id: str) -> Step | None:
        """The step of that id."""
        return next((step for step in self.steps if step.id == step_id), None)
