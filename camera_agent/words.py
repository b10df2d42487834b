"""The contract's vocabularies as far as a camera only says them. Nothing imports this on a camera, where lists that
nobody looks up would take memory; tests/contract holds the agent's words and these lists together.

RAM BUDGET: nothing, it is not loaded.
"""

IMAGE_BYTES = 131072  # camera_agent/snapshot.py
IMAGE_PIECES = 64
BLOCKS_MAX = 999999
UP_CHANNELS = ("status", "result", "telemetry", "led", "update", "event")

UPDATE_STATES = ("transferring", "verifying", "trial", "confirmed", "reverted", "failed", "rejected")
UPDATE_REASONS = (
    "not-enough-storage",
    "storage-error",
    "out-of-memory",
    "connection-lost",
    "digest-mismatch",
    "signature-invalid",
    "unknown-key",
    "manifest-invalid",
    "expired",
    "sequence-too-old",
    "wrong-epoch",
    "wrong-board",
    "unsupported-kind",
    "unsupported-op",
    "unsupported-encoding",
    "labels-mismatch",
    "golden-mismatch",
    "inference-too-slow",
    "model-load-failed",
    "trial-crashed",
    "trial-hung",
    "boot-loop",
    "busy",
    "low-power",
    "operator-cancelled",
    "window-closed",
    "storage-reset",
    "unknown-release",
)
LED_COLORS = ("off", "red", "green", "blue", "cyan", "magenta", "yellow", "white", "unknown")
LED_PATTERNS = ("solid", "blink", "blink-fast", "double-blink", "cycle", "off", "unknown")
RESET_CAUSES = ("power-on", "hard", "watchdog", "deepsleep", "soft", "brown-out", "unknown")
