"""Brings a release's model into the firmware's engine (`ml.Model`, firmware >= 4.5.6).

    model = load(content, files, folder, slot, feed)     # models.Model; ModelError(reason, detail)

Where the firmware can mount a ROMFS image from memory (>= 4.7) the model is used in place: in flash where the slot
lies there without files, else in one buffer of the signed size into which the content is read. Older firmware only
takes a path: the model is written to `<folder>/run_a.tflite` or `run_b.tflite`, unless the file there is already the
one that was signed.

RAM BUDGET: 2 KB of code, loaded when a model is. The model: nothing where it stays in flash, else the content (its
size is in the signed manifest and was checked against the slot), or 4 KB while a file is written; the arena is the
firmware's.
"""

import gc
import hashlib

from camera_agent.crypto import hexed
from camera_agent.heap import const
from camera_agent.models import MOUNT, Model, ModelError, unmount

_PIECE = const(4096)
_ALIGN = const(32)  # bytes; 16 are enough for TensorFlow Lite, the N6 wants 32


def shapes(inputs, outputs):
    """(height, width, channels) and the number of classes from the tensors' shapes. ModelError for any other kind of
    model than a classifier of pictures."""
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][0] != 1 or inputs[0][3] not in (1, 3):
        raise ModelError("model-load-failed", "its input is no single picture: %s" % (inputs,))
    count = 1
    for size in outputs[0]:
        count *= size
    if len(outputs) != 1 or count != outputs[0][-1]:
        raise ModelError("model-load-failed", "it is no classifier: its output is %s" % (outputs,))
    return tuple(inputs[0][1:]), count


def check_input(net):
    """The firmware feeds every model with pixels as they are, minus 128 or divided by 255. ModelError for one that was
    quantised for something else: it would answer, but nonsense. Older engines do not say."""
    try:
        dtype, scale, zero = net.input_dtype[0], net.input_scale[0], net.input_zero_point[0]
    except (AttributeError, IndexError, TypeError):
        return
    if dtype not in ("b", "B", "f"):
        raise ModelError("model-load-failed", "no picture is turned into its input's type " + str(dtype))
    if dtype != "f" and (not 0.95 < scale * 255 < 1.05 or zero != (-128 if dtype == "b" else 0)):
        detail = "its input has scale %s and zero point %s, not 1/255 and -128" % (scale, zero)
        raise ModelError("model-load-failed", detail)


def model_file(files):
    """The entry of the model in a manifest's list of files."""
    for entry in files:
        if entry["path"].endswith(".tflite"):
            return entry
    raise ModelError("model-load-failed", "the release holds no .tflite")


def load(content, files, folder, slot, feed):
    """The model in `content` (.size, .readinto(offset, mv)), ready to classify. Raises ModelError."""
    gc.collect()
    try:
        import ml

        vfs = _vfs()
        if vfs is None:
            path = _write_out(content, model_file(files), "%s/run_%s.tflite" % (folder, slot), feed)
            return _checked(ml.Model(path))
        buffer = _mount(vfs, content, feed)
        try:
            return _checked(ml.Model(MOUNT + "/" + model_file(files)["path"]), buffer)
        except BaseException:
            unmount()
            raise
    except MemoryError as error:
        gc.collect()
        raise ModelError("out-of-memory", str(error)) from None
    except ModelError:
        raise
    except Exception as error:  # the engine raises ValueError, RuntimeError, OSError; without ml, ImportError
        raise ModelError("model-load-failed", "%s: %s" % (type(error).__name__, error)) from None


def _checked(net, buffer=None):
    check_input(net)
    input_shape, output_len = shapes(net.input_shape, net.output_shape)
    return Model(net, input_shape, output_len, buffer)


def _vfs():
    """The module that mounts ROMFS images from memory, or None."""
    try:
        import vfs
    except ImportError:
        return None
    return vfs if hasattr(vfs, "VfsRom") else None


def _mount(vfs, content, feed):
    import uctypes

    view = room = content.view() if hasattr(content, "view") else None
    if view is None:
        room = bytearray(content.size + _ALIGN - 1)
        start = -uctypes.addressof(room) % _ALIGN
        view = memoryview(room)[start : start + content.size]
        _read(content, 0, view, feed)
    unmount()
    vfs.mount(vfs.VfsRom(view), MOUNT)
    return room


def _read(content, offset, view, feed):
    at = 0
    while at < len(view):
        count = content.readinto(offset + at, view[at : at + _PIECE])
        if not count:
            raise OSError("the slot is shorter than it was")
        at += count
        feed()


def _write_out(content, entry, path, feed):
    """The model as a file. An equal one is left alone; one of the same size is overwritten in place."""
    view = memoryview(bytearray(_PIECE))
    size = _size_of(path)
    if size == entry["size"] and _digest_of(path, view, feed) == entry["sha256"]:
        return path
    with open(path, "r+b" if size == entry["size"] else "wb") as file:
        at = 0
        while at < entry["size"]:
            part = view[: min(_PIECE, entry["size"] - at)]
            _read(content, entry["offset"] + at, part, feed)
            file.write(part)
            at += len(part)
    if _digest_of(path, view, feed) != entry["sha256"]:
        raise ModelError("storage-error", path + " does not read back")
    return path


def _size_of(path):
    import os

    try:
        return os.stat(path)[6]
    except OSError:
        return -1


def _digest_of(path, view, feed):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            count = file.readinto(view)
            if not count:
                return hexed(digest.digest())
            digest.update(view[:count])
            feed()
