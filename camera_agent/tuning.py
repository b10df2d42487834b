"""The settings that fleetd may change while the camera runs, each with its check.

    refused = override(settings, desired["config"])

RAM BUDGET: under 1 KB.
"""

from camera_agent.protocol import RESULTS_PER_MESSAGE


def between(least, most):
    """A check for whole numbers in this range."""
    return lambda value: type(value) is int and least <= value <= most


def is_flag(value):
    """Whether it is true or false."""
    return type(value) is bool


def _is_publish(value):
    return value in ("every", "on_change")


# What `down/desired` may change; it holds until the next start, when fleetd says it again.
CHANGEABLE = {
    "publish": _is_publish,
    "interval_ms": between(0, 86_400_000),
    "batch": between(1, RESULTS_PER_MESSAGE),
    "batch_ms": between(0, 3_600_000),
    "scores": is_flag,
    "telemetry_s": between(1, 3600),
}


def override(settings, wanted):
    """Apply what fleetd desires. Answers the names that were refused: unknown here, or with a wrong value."""
    refused = []
    for name in wanted:
        if name in CHANGEABLE and CHANGEABLE[name](wanted[name]):
            settings[name] = wanted[name]
        else:
            refused.append(str(name))
    return sorted(refused)
