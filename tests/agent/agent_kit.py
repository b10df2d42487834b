"""A camera whose agent is updated, without sensor, link and outbox: fast enough to be cut off at every write."""

import hashlib
import json
from types import SimpleNamespace
from typing import Any

from camera_agent import boot
from camera_agent.agents import Agents
from camera_agent.pointer import decode_pointer, newest
from tests.agent import update_kit
from tests.agent.update_kit import Camera, MemoryFiles, Release, Signer, describe, full


def agent_release(signer: Signer, release: str, sequence: int = 1, size: int = 9000) -> Release:
    """A signed agent; what its bytes are is nobody's business here."""
    content = hashlib.shake_128(release.encode()).digest(size)
    entry = {"path": "camera_agent", "offset": 0, "size": size, "sha256": hashlib.sha256(content).hexdigest()}
    encodings = [full(content)]
    manifest = describe(release, content, encodings, sequence, kind="agent", model=None)
    manifest["content"]["files"] = [entry]
    return Release(release, signer.manifest(json.dumps(manifest).encode()), content, encodings)


class AgentHal(update_kit.Hal):
    """What the guard asks of the hardware, too."""

    def can_change_agent(self) -> bool:
        return True


class AgentCamera(Camera):
    """Starts as boards do: the guard first. `files` as for Camera, with agent slots."""

    def __init__(self, signer: Signer, files: Any = None) -> None:
        super().__init__(signer, files or MemoryFiles().agent_slots())
        self.hal = AgentHal()
        self.facts: dict[str, Any] = {}
        self.agents: Any = None
        self._link = SimpleNamespace(connected=True)
        self._vision = SimpleNamespace(frames=0, has_model=False, has_eye=True)

    def boot(self) -> "AgentCamera":
        self.hal.now = 0
        self.facts = boot.blank_facts()
        self.choose()
        super().boot()
        self.agents = Agents(
            self.hal, self.files, self.ring.known, self.updater.buffer, self.facts, self._report
        )
        self.updater.agents = self.agents
        self.agents.begin()
        return self

    def choose(self) -> None:
        """What camera_agent/boot.py does before the agent runs."""
        boot.choose_from(self.files, self.facts, self.hal.cause, lambda *_: True)

    def again(self, cause: str = "soft") -> "AgentCamera":
        """The next start."""
        self.hal.cause = cause
        return self.boot()

    def prove(self, receipts: int = 1, troubles: int = 0) -> "AgentCamera":
        """A minute in which everything goes well, or not."""
        self.hal.now += 61_000
        outbox = SimpleNamespace(receipted=receipts)
        self.agents.look(self.hal.now, self._link, outbox, self._vision, SimpleNamespace(count=troubles))
        return self

    def change_agent(self, release: Release, generation: int = 2) -> "AgentCamera":
        """The whole way to a new agent that works."""
        self.broker.publish(release)
        self.want(release, generation).run()
        if self.agents.wants_restart:
            self.agents.close()
            self.again().prove()
        return self

    @property
    def running(self) -> str | None:
        """The release of the agent that runs; None: the files on the drive."""
        return self.facts["release"]["id"] if self.facts["release"] else None

    @property
    def record(self) -> Any:
        """The boot record that counts."""
        copies = [decode_pointer(region.seen()) for region in (self.files.boot_0, self.files.boot_1)]
        which = newest(*copies)
        return None if which is None else copies[which]
