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
    return value in ("every", "on_change", "interval", "summary")


def _is_threshold(value):
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _is_roi(value):
    """Left, top, width, height in percent of the sensor's frame."""
    if value is None:
        return True
    if type(value) is not list or len(value) != 4:
        return False
    for part in value:
        if type(part) is not int or not 0 <= part <= 100:
            return False
    left, top, width, height = value
    return width >= 10 and height >= 10 and left + width <= 100 and top + height <= 100


def _is_frame_size(value):
    return value in (None, "QVGA", "VGA", "XGA", "SXGA", "UXGA")


# What `down/desired` may change; it holds until the next start, when fleetd says it again.
CHANGEABLE = {
    "publish": _is_publish,
    "interval_ms": between(0, 86_400_000),
    "publish_s": between(1, 86_400),
    "change_frames": between(1, 1000),
    "threshold": _is_threshold,
    "roi": _is_roi,
    "frame_size": _is_frame_size,
    "snapshot_below": _is_threshold,
    "snapshots_per_day": between(0, 1000),
    "batch": between(1, RESULTS_PER_MESSAGE),
    "batch_ms": between(0, 3_600_000),
    "scores": is_flag,
    "sleep_s": between(0, 86_400),
    "awake_s": between(10, 3600),
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
