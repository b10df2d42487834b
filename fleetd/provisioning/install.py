"""The order of writing. At any moment the camera finds either its complete old agent or the complete new one.

The new agent is written beside the old one, as `camera_agent.new`, and read back. Then

    camera_agent.new -> lib/camera_agent      it is complete, but the old one is found first
    camera_agent     -> camera_agent.old      from here on the camera finds the new one, in lib
    lib/camera_agent -> camera_agent          where it belongs; found before and after

so that a single renaming decides. `main.py` comes last; the old one starts the new agent as well. The settings are
written between: `fleet/config.new` is there from before the credential is asked for until it has become config.json,
so that a run that was cut off in between is noticed, and the credential asked for again.

Whatever a cut leaves behind, the next run puts in order first.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from fleetd.provisioning import package
from fleetd.provisioning.config import Credential, Draft
from fleetd.provisioning.disk import Disk
from fleetd.provisioning.errors import DriveError, DriveFullError
from fleetd.provisioning.looking import (
    CONFIG,
    DRAFT,
    FRESH,
    LIVE,
    MAIN,
    OLD,
    SPARE,
    Main,
    modules,
)
from fleetd.provisioning.package import RECORD, AgentPackage

_MAIN_NEW = "main.new"
NETWORK_NOTES = ("fleet/net_ok.bin", "fleet/net_try.bin")  # camera_agent/netconfig.py keeps them
_SLACK_FILES = 6  # folders, settings, main.py: a few clusters each


@dataclass(frozen=True, slots=True)
class Done:
    """What a run has changed."""

    agent: bool
    config: bool
    main: bool
    kept_main: str | None  # where somebody's own main.py lies now


@dataclass(slots=True)
class _State:
    """What the camera would run if the drive were taken away now, in words for an error."""

    words: str


def install(
    disk: Disk,
    agent: AgentPackage,
    config: Draft,
    secret: Callable[[], Credential],
    *,
    main_before: Main,
    in_place: bool = False,
) -> Done:
    """Brings agent, settings and main.py onto the drive. `secret` is asked when everything else is in place.

    `in_place`: without room for a second copy, the old agent is taken away first, its main.py before it. DriveError
    says what the camera has now and what to do.
    """
    state = _State("The camera has no complete agent yet.")
    try:
        return _install(disk, agent, config, secret, state, main_before=main_before, in_place=in_place)
    except DriveError as error:
        raise type(error)(f"{error.message} {state.words} {error.remedy}") from error


def _install(
    disk: Disk,
    agent: AgentPackage,
    config: Draft,
    secret: Callable[[], Credential],
    state: _State,
    *,
    main_before: Main,
    in_place: bool,
) -> Done:
    put_in_order(disk)
    is_new = not _holds(disk, LIVE, agent)
    had_agent = bool(modules(disk, LIVE))
    kept = _keep_main(disk) if main_before == "other" else None
    if had_agent:
        state.words = "The camera still has its old agent."
    is_beside = is_new and _is_room(disk, agent, in_place=in_place)
    if is_beside:
        try:
            _fill(disk, FRESH, agent)
        except DriveFullError:
            with contextlib.suppress(DriveError):
                discard(disk, FRESH)
            raise
    is_config_new = _write_config(disk, config, secret)
    if is_beside:
        state.words = "The camera has its old agent or the new one, complete in any case."
        _switch(disk)
        state.words = "The camera has its new agent, but the run is not finished."
        _sweep_old(disk)
    elif is_new:
        if disk.kind(MAIN) is not None:
            disk.remove(MAIN)  # a half-replaced agent must not run
            disk.settle(".")
        state.words = "The camera has no complete agent now and does not start one."
        discard(disk, LIVE)
        _fill(disk, LIVE, agent)
    is_main_new = disk.read(MAIN, len(agent.main) + 1) != agent.main
    if is_main_new:
        disk.write(_MAIN_NEW, agent.main)
        disk.rename(_MAIN_NEW, MAIN)
    state.words = "The camera has its new agent."
    disk.settle(".", "fleet", LIVE)
    disk.sync()
    return Done(agent=is_new, config=is_config_new, main=is_main_new, kept_main=kept)


def put_in_order(disk: Disk) -> None:
    """Takes away, or brings to its place, what an unfinished run has left."""
    is_unfinished = any(disk.kind(folder) is not None for folder in (FRESH, SPARE, OLD))
    discard(disk, FRESH)
    if disk.kind(SPARE) is not None:
        if disk.kind(LIVE) is None:
            disk.rename(SPARE, LIVE)
        else:
            discard(disk, SPARE)
    _sweep_old(disk)
    if is_unfinished and disk.kind("lib") == "folder" and not disk.names("lib"):
        disk.remove_folder("lib")
    if disk.kind(_MAIN_NEW) is not None:
        disk.remove(_MAIN_NEW)
    for folder in (SPARE, OLD):
        if disk.kind(folder) is not None:
            raise DriveError(
                f"{disk.root / folder} holds files that do not belong to the agent. Move them somewhere else."
            )


def discard(disk: Disk, folder: str) -> None:
    """Removes the agent's files from a folder, and the folder if nothing else is in it."""
    if disk.kind(folder) is None:
        return
    for name in disk.names(folder):
        if package.is_ours(name) and disk.kind(f"{folder}/{name}") == "file":
            disk.remove(f"{folder}/{name}")
    if not disk.names(folder):
        disk.remove_folder(folder)


def _sweep_old(disk: Disk) -> None:
    """The old agent goes; what else lay in its folder comes back to where it was."""
    if disk.kind(OLD) is None:
        return
    for name in disk.names(OLD):
        is_ours = package.is_ours(name) and disk.kind(f"{OLD}/{name}") == "file"
        if not is_ours and disk.kind(f"{LIVE}/{name}") is None:
            disk.rename(f"{OLD}/{name}", f"{LIVE}/{name}")
    discard(disk, OLD)


def _holds(disk: Disk, folder: str, agent: AgentPackage) -> bool:
    """Whether a folder holds exactly this agent."""
    record = agent.record()
    return (
        modules(disk, folder) == dict(agent.files)
        and disk.read(f"{folder}/{RECORD}", len(record) + 1) == record
    )


def _is_room(disk: Disk, agent: AgentPackage, *, in_place: bool) -> bool:
    """Whether a second copy fits. If not: False when it may be replaced in place, else DriveFullError."""
    room = disk.room()
    needed = room.cost(*agent.sizes()) + _SLACK_FILES * room.cost(room.cluster)
    if needed <= room.free:
        return True
    old = room.cost(*(len(data) for data in modules(disk, LIVE).values()))
    facts = f"The new agent needs {needed // 1024} KB, {room.free // 1024} KB are free."
    if needed > room.free + old:
        raise DriveFullError(facts)
    if not in_place and disk.kind(MAIN) is not None:  # without main.py there is nothing to lose
        raise DriveFullError(
            f"{facts} There is no room for it beside the old one. With --in-place the old one is taken away first; "
            "the camera then has none until the run is through."
        )
    return False


def _fill(disk: Disk, folder: str, agent: AgentPackage) -> None:
    disk.make_folder(folder)
    for name, data in agent.files.items():
        disk.write(f"{folder}/{name}", data)
    disk.write(f"{folder}/{RECORD}", agent.record())
    disk.settle(".", folder)


def _switch(disk: Disk) -> None:
    if disk.kind(LIVE) is None:
        disk.rename(FRESH, LIVE)
        disk.settle(".")
        return
    made = disk.kind("lib") is None
    if made:
        disk.make_folder("lib")
    disk.rename(FRESH, SPARE)
    disk.settle(".", "lib", SPARE)
    disk.rename(LIVE, OLD)
    disk.rename(SPARE, LIVE)
    disk.settle(".", "lib")
    if made:
        disk.remove_folder("lib")


def _write_config(disk: Disk, config: Draft, secret: Callable[[], Credential]) -> bool:
    """Writes the settings, unless they are there already."""
    disk.make_folder("fleet")
    if isinstance(secret, KnownSecret) and disk.kind(DRAFT) is None:
        wanted = config.rendered(secret.value)
        if disk.read(CONFIG, len(wanted) + 1) == wanted:
            return False
    for note in NETWORK_NOTES:  # another WiFi, taken from afar, must not win over what is written now
        if disk.kind(note) is not None:
            disk.remove(note)
    disk.write(DRAFT, config.rendered(None), private=True)
    disk.settle(".", "fleet")
    disk.write(DRAFT, config.rendered(secret()), private=True)
    disk.rename(DRAFT, CONFIG)
    disk.settle("fleet")
    return True


def _keep_main(disk: Disk) -> str | None:
    """A copy of somebody's own main.py under another name."""
    text = disk.read(MAIN, 1 << 24)
    if text is None:
        return None
    number = 1
    while (kept := disk.read(f"main-before-{number}.py", 1 << 24)) is not None:
        if kept == text:
            break
        number += 1
    else:
        disk.write(f"main-before-{number}.py", text)
    return f"main-before-{number}.py"


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """A credential that the drive has already, so nobody needs to be asked."""

    value: Credential

    def __call__(self) -> Credential:
        """The credential."""
        return self.value

    def __repr__(self) -> str:
        return "KnownSecret(...)"
