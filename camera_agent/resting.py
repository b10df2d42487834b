"""What stands in for the vision loop in safe mode: no picture is taken and no model is loaded.

RAM BUDGET: under 1 KB.
"""


class Resting:
    """The part of vision.Vision that the agent's core asks for."""

    has_eye = True
    has_model = False
    model = None
    failure = None
    wants_fresh_heap = False
    frames = 0
    on_frame = None
    release = None

    def step(self):
        """There is nothing to do."""
        return False

    def flush(self):
        """There is nothing to send."""

    def problems(self):
        """What a person has to know."""
        return ["safe-mode"]

    def telemetry(self):
        """Nothing is measured."""
        return {"frames": 0}
