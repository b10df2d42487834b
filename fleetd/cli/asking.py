"""Where answers come from: a person at the terminal, or a file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.text import safe

_YES = {
    "": "ok",
    "y": "ok",
    "yes": "ok",
    "done": "ok",
    "ok": "ok",
    "n": "failed",
    "no": "failed",
    "failed": "failed",
}


class QuitError(Exception):
    """The person wants to stop here and go on another time."""


class Asking:
    """Asks for the outcome of steps. With a file nobody is asked: what it does not answer is an error."""

    def __init__(self, answers: Mapping[str, Any] | None) -> None:
        self._answers = None if answers is None else dict(answers)

    @property
    def is_scripted(self) -> bool:
        """Whether nobody is there to be asked."""
        return self._answers is not None

    def done(self, step_id: str) -> str:
        """Whether a step was done: `ok` or `failed`."""
        said = self._from_file(step_id)
        while said is None or said.lower() not in _YES:
            said = typer.prompt(
                "Done? [Y]es, [n]o, [q]uit", default="y", show_default=False, err=True
            ).strip()
            if said.lower() in ("q", "quit"):
                raise QuitError
        return _YES[said.lower()]

    def choose(self, step_id: str, choices: Sequence[Mapping[str, str]]) -> str:
        """One of the answers, by its number, by itself, or for lights as somebody writes them."""
        words = [str(one["answer"]) for one in choices]
        said = self._from_file(step_id)
        if said is not None:
            return words[int(said) - 1] if said.isdigit() and 0 < int(said) <= len(words) else said
        while True:
            said = str(typer.prompt("Number or answer ([q]uit)", err=True)).strip().lower()
            if said in ("q", "quit"):
                raise QuitError
            if said.isdigit() and 0 < int(said) <= len(words):
                return words[int(said) - 1]
            if said in words or (step_id == "look-at-led" and said):
                return said

    def text(self, step_id: str, question: str, *, hidden: bool = False) -> str | None:
        """A line of text; None when it was left empty, or when nobody is there."""
        if self._answers is not None:
            return self._from_file(step_id) if step_id in self._answers else None
        said = typer.prompt(question, default="", show_default=False, hide_input=hidden, err=True)
        return str(said).strip() or None

    def _from_file(self, step_id: str) -> str | None:
        """The next answer for a step; None when a person is to be asked. A list is used up one by one."""
        if self._answers is None:
            return None
        found = self._answers.get(step_id)
        if isinstance(found, list):
            found = found.pop(0) if found else None
        if found is None:
            raise CliError(
                f"The answers say nothing about the step {step_id}.",
                "Add it, or run without --answers: it goes on at this step.",
                exit_code=UNUSABLE,
            )
        return str(found)


def read_answers(path: Path) -> dict[str, Any]:
    """A JSON object: step -> answer, or a list of answers for a step that comes again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliError(
            f"The answers in {safe(path)} cannot be read: {safe(error)}.", exit_code=UNUSABLE
        ) from error
    if not isinstance(found, dict):
        raise CliError(
            f"The answers in {safe(path)} are no JSON object.",
            'For example {"look-at-led": "white blink-fast", "unplug": "ok"}',
            exit_code=UNUSABLE,
        )
    return found
