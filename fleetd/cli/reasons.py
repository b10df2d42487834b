"""What an update's reason means, and what an operator does about it. docs/updates.md has the same table."""

from typing import Final, NamedTuple


class Advice(NamedTuple):
    """A reason in words."""

    meaning: str
    todo: str


REASONS: Final[dict[str, Advice]] = {
    "not-enough-storage": Advice(
        "The camera has no slot large enough for the release.",
        "Use a smaller model, or put an SD card into the camera.",
    ),
    "storage-error": Advice(
        "The camera's storage could not be written or read back.",
        "Replace the SD card or, without one, reset the camera's storage and provision it again.",
    ),
    "out-of-memory": Advice(
        "The model needs more memory than the camera has left.",
        "Use a smaller input size or a smaller model; preflight shows what a board has.",
    ),
    "connection-lost": Advice(
        "The connection broke and did not come back in time.",
        "Look at the radio link (`fleetctl telemetry`), then push again: what arrived is kept.",
    ),
    "digest-mismatch": Advice(
        "What arrived is not what was signed, although it was fetched again.",
        "Push again. If it repeats, look at the camera's storage and at who can write to the broker.",
    ),
    "signature-invalid": Advice(
        "The manifest's signature does not hold.",
        "Somebody changed the manifest on its way, or the upload is damaged: push again, look at the broker.",
    ),
    "unknown-key": Advice(
        "The camera does not know the key that signed the release.",
        "Sign with a key that the camera knows, or provision the camera with this key.",
    ),
    "manifest-invalid": Advice(
        "The manifest is signed, but the camera cannot make sense of it.",
        "The camera's agent may be too old for this release: update the agent.",
    ),
    "expired": Advice(
        "The release had expired when the camera saw it.",
        "Push the model again; `--expires-days` sets how long a release stays good.",
    ),
    "sequence-too-old": Advice(
        "The camera has already confirmed a release with a higher sequence number.",
        "Push the model again: a new release has a higher number. Going back is a new release too.",
    ),
    "wrong-epoch": Advice(
        "The release belongs to another key epoch than the camera is in.",
        "Push the model again. If it repeats, `fleetctl keys ring` shows which cameras lag behind with their keys.",
    ),
    "wrong-board": Advice(
        "The release is not meant for this camera's board.",
        "Push with `--board` for this board, or narrow `--to`.",
    ),
    "unsupported-kind": Advice(
        "The camera's agent does not take releases of this kind.",
        "Update the camera's agent.",
    ),
    "unsupported-op": Advice(
        "The camera's firmware does not have an operator that the model uses.",
        "Update the camera's firmware, or train the model without that operator; `fleetctl inspect` names it.",
    ),
    "unsupported-encoding": Advice(
        "The camera cannot unpack any encoding that the release offers.",
        "Update the camera's agent.",
    ),
    "labels-mismatch": Advice(
        "The labels do not fit the model's output.",
        "Export the bundle again so that model and labels belong together.",
    ),
    "golden-mismatch": Advice(
        "The model answers differently on the camera than it did where it was made.",
        "Check quantisation and firmware version; try the model on one camera of that board.",
    ),
    "inference-too-slow": Advice(
        "The model takes longer than allowed on that camera.",
        "Use a smaller model or input size.",
    ),
    "model-load-failed": Advice(
        "The camera's firmware could not load the model.",
        "Run `fleetctl inspect` for that board; check the firmware version.",
    ),
    "trial-crashed": Advice(
        "The camera restarted while it tried the model, twice. It went back to the old one.",
        "Look at `fleetctl events --camera CAMERA`; try the model on one camera first.",
    ),
    "trial-hung": Advice(
        "The camera hung while it tried the model and its watchdog restarted it.",
        "Do not push this model again to that board; look at `fleetctl events --camera CAMERA`.",
    ),
    "boot-loop": Advice(
        "The camera kept restarting and went back to its old model.",
        "Look at its power supply and at `fleetctl events --camera CAMERA` before pushing again.",
    ),
    "busy": Advice(
        "The camera is in the middle of something it must not interrupt.",
        "Push again later.",
    ),
    "low-power": Advice(
        "The camera's supply is too weak for an update.",
        "Charge or replace the supply, then push again.",
    ),
    "operator-cancelled": Advice(
        "An operator cancelled the rollout.",
        "Nothing; push again when it is wanted.",
    ),
    "window-closed": Advice(
        "The time in which the camera may update was over.",
        "Wait for the next window, or push again.",
    ),
    "storage-reset": Advice(
        "The camera's storage was formatted, so it lost its slots.",
        "Push again; if it lost its credential too, provision it again.",
    ),
    "unknown-release": Advice(
        "The broker did not have the release's manifest when the camera asked.",
        "Push again. If it repeats, look at `fleetctl status`: the broker's memory may be full.",
    ),
    # From here on: fleetd's own words, for what it concludes from silence.
    "silent": Advice(
        "Nothing was heard of the update for too long.",
        "Look at the camera (`fleetctl cameras show`); `fleetctl rollouts retry` offers it again.",
    ),
    "offer-not-taken": Advice(
        "The camera is there but did not take the offer up.",
        "Look at `fleetctl events --camera CAMERA`; `fleetctl rollouts retry` offers it again.",
    ),
    "rebooted": Advice(
        "The camera restarted during the transfer and takes it up again.",
        "Nothing; if it repeats, look at its power supply.",
    ),
    "halted": Advice(
        "fleetd halted the rollout and took the offer back.",
        "Look at `fleetctl rollouts explain ROLLOUT`; `fleetctl rollouts resume` goes on.",
    ),
    "pinned": Advice(
        "The camera is pinned to another release.",
        "`fleetctl cameras unpin CAMERA` lets rollouts bring it anything again.",
    ),
    # And why a rollout leaves a camera out from the start.
    "higher-priority": Advice(
        "Another rollout with a higher priority has the camera.",
        "Wait for that rollout, or give this one a priority at least as high.",
    ),
    "already-runs-it": Advice("The camera runs that release.", "Nothing."),
    "unsuitable-board": Advice(
        "The release was not made for the camera's board.",
        "Push with `--board` for that board too.",
    ),
    "reverted-before": Advice(
        "The camera tried this release and went back to its old model.",
        "Find out why, then push again: that makes a new release.",
    ),
    "runs-newer": Advice(
        "The camera runs a newer release and would refuse an older one.",
        "Push the older model again: that makes a new release with a higher number.",
    ),
}


def advice(reason: str | None) -> Advice | None:
    """What to say about a reason; None for one that a newer agent made up."""
    return REASONS.get(reason or "")
