"""A camera under attack: the real updater, a broker that lies, and what has to be true afterwards.

    victim = Victim()                       runs model-1, signed by its operator
    victim.offered(Release(...))            the broker says that this is desired, and has it
    victim.repelled("rejected", "unknown-key")

`repelled` asserts the word, that neither slot nor pointer was touched, that the old model still runs, also after a
restart, and that an honest release installs afterwards.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.agent.update_kit import Camera, Encoding, Release, Signer, describe, full, make_release, weights

OPERATOR = Signer(0x5EED)
THIEF = Signer(0x7E1F)
RUNNING = weights(9000)
TARGET = weights(9000, 5)
HONEST = weights(9000, 77)
NAME = "model-2"
FIRST = make_release(OPERATOR, "model-1", RUNNING)

Manifest = dict[str, Any]


def honest(sequence: int = 1000) -> Release:
    """What the operator sends when all is over."""
    return make_release(OPERATOR, "model-honest", HONEST, sequence)


def plan(**changes: Any) -> Manifest:
    """The JSON object of a good manifest for the target, changed."""
    return describe(NAME, TARGET, [full(TARGET)], 2) | changes


def signed(manifest: Manifest, signer: Signer = OPERATOR) -> bytes:
    """Its signed bytes."""
    return signer.manifest(json.dumps(manifest).encode())


def release(blob: bytes, encodings: list[Encoding] | None = None) -> Release:
    """What the broker holds: these bytes as the manifest, and good blocks."""
    return Release(NAME, blob, TARGET, [full(TARGET)] if encodings is None else encodings)


class Victim(Camera):
    """See the module's docstring."""

    def __init__(self, **sizes: int) -> None:
        from tests.agent.update_kit import MemoryFiles

        super().__init__(OPERATOR, MemoryFiles(**sizes))
        self.boot().install(FIRST)
        self.reports.clear()
        self.generation = 1
        self._before = self._storage()

    def _storage(self) -> dict[str, bytes]:
        names = ("slot_a", "slot_b", "pointer_0", "pointer_1")
        return {name: bytes(getattr(self.files, name).seen()) for name in names}

    def offered(self, what: Release, alter: Callable[[str, bytes], list[bytes]] | None = None) -> "Victim":
        """The broker offers a release under the usual name; `alter` changes what it delivers."""
        self.broker.publish(what)
        if alter is not None:
            self.broker.alter = alter
        self.generation += 1
        self.want(NAME, self.generation)
        self.run()
        return self

    def repelled(self, state: str, reason: str | None, *, untouched: bool = True) -> None:
        """Asserts all that the module's docstring names. `untouched` False: the spare slot may have been written,
        the confirmed one and what the pointers decide not.
        """
        assert self.last() == (state, reason), self.reports[-3:]
        now = self._storage()
        if untouched:
            assert now == self._before, "storage was touched"
        else:
            assert now["slot_a"] == self._before["slot_a"], "the confirmed slot was touched"
        self.is_healthy()

    def is_healthy(self) -> None:
        """The old model runs, also after a restart, and an honest release installs."""
        assert self.model() == ("model-1", RUNNING)
        self.broker.alter = lambda _topic, payload: [payload]
        self.boot().run()
        assert self.model() == ("model-1", RUNNING)
        assert not self.updater.status()["trial"]
        self.reports.clear()
        self.install(honest(), self.generation + 1)
        assert self.model() == ("model-honest", HONEST)
