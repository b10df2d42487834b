"""Pictures whose content is known: a blue ball, a toy figure, or neither, on a random background.

Drawn, not photographed, so that they can be made endlessly and belong to nobody. The demo models were trained
on drawings of other seeds.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from fleetd.simulator.errors import SimulatorUnavailableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Picture = NDArray[np.uint8]  # (size, size, 3)

LABELS: Final = ("background", "blue ball", "lego figure")
SIZE: Final = 96


def draw(kind: int, seed: int, size: int = SIZE) -> "Picture":
    """The picture of class `kind` (index into LABELS) for this seed: the same seed draws the same picture."""
    np, filters = _libraries()
    rng = np.random.default_rng(seed)
    picture = _backdrop(rng, size)
    if kind == 1:
        _draw_ball(rng, picture, size)
    elif kind == 2:
        _draw_figure(rng, picture, size)
    picture = picture.filter(filters.GaussianBlur(rng.uniform(0, 1.1)))
    pixels = np.asarray(picture, "float32") * rng.uniform(0.6, 1.25)
    pixels = pixels + rng.normal(0, rng.uniform(0, 8), (size, size, 3))
    drawn: Picture = np.clip(pixels, 0, 255).astype("uint8")
    return drawn


def as_jpeg(picture: "Picture", quality: int) -> bytes:
    """The picture as JPEG bytes."""
    from PIL import Image  # noqa: PLC0415  # an extra

    out = BytesIO()
    Image.fromarray(picture.squeeze()).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _libraries() -> tuple[Any, Any]:
    try:
        import numpy as np  # noqa: PLC0415  # an extra
        from PIL import ImageFilter  # noqa: PLC0415
    except ImportError as error:
        raise SimulatorUnavailableError from error
    return np, ImageFilter


def _backdrop(rng: Any, size: int) -> "Image.Image":
    """Two colours blended at an angle, coarse noise, and a few shapes that are neither class."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image, ImageDraw  # noqa: PLC0415

    first, second = rng.integers(0, 256, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    blend = np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1)[..., None]
    noise = np.kron(rng.normal(0, rng.uniform(2, 30), (size // 8, size // 8, 3)), np.ones((8, 8, 1)))
    picture = Image.fromarray(np.clip(first * (1 - blend) + second * blend + noise, 0, 255).astype("uint8"))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 7)):
        left, top, right, bottom = rng.integers(-20, size + 20, 4)
        box = [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = rng.integers(3)
        if shape == 0:
            pen.rectangle(box, fill=color)
        elif shape == 1:
            pen.line(box, fill=color, width=int(rng.integers(1, 9)))
        elif color[2] < 110 or color[2] < 1.2 * max(color[:2]):
            pen.ellipse(box, fill=color)  # round, but not blue
    return picture


def _draw_ball(rng: Any, picture: "Image.Image", size: int) -> None:
    """A blue ball, shaded towards a highlight."""
    import numpy as np  # noqa: PLC0415
    from PIL import ImageDraw  # noqa: PLC0415

    radius = rng.uniform(0.24, 0.55) * size
    x, y = rng.uniform(0.3, 0.7, 2) * size
    blue = rng.integers(150, 256)
    base = np.array([rng.integers(0, 70), rng.integers(20, 110), blue])
    pen = ImageDraw.Draw(picture)
    light_x, light_y = rng.uniform(-0.3, 0.3, 2) * radius
    for step in np.linspace(0, 0.95, 12):
        color = base * (0.45 + 0.55 * step) + 255 * max(0, step - 0.8) * 2.5
        around = radius * (1 - step)
        at_x, at_y = x + light_x * step, y + light_y * step
        box = [at_x - around, at_y - around, at_x + around, at_y + around]
        pen.ellipse(box, fill=tuple(int(min(255, value)) for value in color))


def _draw_figure(rng: Any, picture: "Image.Image", size: int) -> None:
    """A toy figure: yellow head with a stud and a face, torso, arms with hands, hip and two legs."""
    from PIL import Image, ImageDraw  # noqa: PLC0415

    unit = rng.uniform(0.055, 0.095) * size
    layer = Image.new("RGBA", (2 * size, 2 * size))
    pen = ImageDraw.Draw(layer)
    top, shade = size - 5 * unit, rng.uniform(0.7, 1.05)

    def shaded(color: Any) -> tuple[int, ...]:
        return (*(int(min(255, value * shade)) for value in color), 255)

    def at(x: float, y: float) -> tuple[float, float]:
        return size + x * unit, top + y * unit

    skin = shaded((245, 205, 47))
    torso, legs = (shaded(rng.integers(0, 256, 3)) for _ in range(2))
    dark = shaded((30, 25, 20))
    pen.rectangle([*at(-0.6, 0), *at(0.6, 0.5)], fill=skin)
    pen.rounded_rectangle([*at(-1.25, 0.4), *at(1.25, 2.5)], radius=0.5 * unit, fill=skin)
    for eye in (-0.5, 0.5):
        pen.ellipse([*at(eye - 0.22, 1.05), *at(eye + 0.22, 1.5)], fill=dark)
    pen.arc([*at(-0.6, 1.3), *at(0.6, 2.1)], 20, 160, fill=dark, width=max(1, int(0.2 * unit)))
    if rng.random() < 0.5:
        pen.pieslice([*at(-1.4, -0.3), *at(1.4, 1.9)], 180, 360, fill=shaded(rng.integers(0, 200, 3)))
    pen.polygon([at(-1.4, 2.6), at(1.4, 2.6), at(2, 6), at(-2, 6)], fill=torso)
    for side in (-1, 1):
        pen.line([at(side * 1.7, 3.1), at(side * 2.5, 5.2)], fill=torso, width=max(2, int(0.9 * unit)))
        pen.ellipse([*at(side * 2.6 - 0.55, 5), *at(side * 2.6 + 0.55, 6.1)], fill=skin)
        left, right = sorted([side * 0.15, side * 1.9])
        pen.rectangle([*at(left, 6.7), *at(right, 10)], fill=legs)
    pen.rectangle([*at(-1.9, 6.1), *at(1.9, 6.8)], fill=legs)
    turned = layer.rotate(rng.uniform(-18, 18), center=(size, size), resample=Image.Resampling.BILINEAR)
    x, y = (int(value) for value in rng.uniform(-0.18, 0.18, 2) * size)
    picture.paste(turned, (-size // 2 + x, -size // 2 + y), turned)
