"""Every ceiling of the contract, in one place. `camera_agent/protocol.py` repeats them; a test compares."""

TOPIC_BYTES = 128
UP_BYTES = 16 * 1024  # one JSON message from a camera
DOWN_BYTES = 4 * 1024  # one JSON message to a camera
BLOCK_BYTES = 4 * 1024  # one piece of a release's content
MANIFEST_BYTES = 8 * 1024  # signature included
LABELS = 256
LABEL_BYTES = 64
CONTENT_BYTES = 16 * 1024 * 1024  # a model with its labels, unpacked
RESULTS_PER_MESSAGE = 64
TEXT_CHARS = 2000  # any free text in a message
SEQ_MAX = 2**53 - 1  # what JSON readers agree on
RELEASE_ID_CHARS = 64
IMAGE_BYTES = 128 * 1024  # a picture
IMAGE_PIECES = 64  # it comes in so many, each at most a block
