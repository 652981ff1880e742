"""Ink: find what is written in a picture, whatever its size, polarity and light, and bring it to one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoonet.ops.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Plane = np.ndarray[Any, Any]  # float32 (height, width)
_SEARCH, _DETAIL = 256, 96  # longer side, in pixels, at which a digit is looked for, and at which it is cut out
_TINY, _DOUBT = 16, 2  # pictures of so few pixels are searched in detail first, bounds being so many pixels uncertain
_FAINTEST = 0.03  # of the range from black to white: less contrast is no ink


def find_ink(image: Image) -> Plane:
    """The writing in a picture of mode RGB, cut to its bounding box: 1 is ink, 0 is paper, longer side about 60 to 96.

    Raises InputError where the picture has one colour.
    """
    image = _contrast(image)
    direction = ink = None
    for _ in range(2):  # once in the whole picture, once in what was found
        (left, top, right, bottom), direction, ink = _search(image, direction)
        if (right - left) * (bottom - top) > 0.9 * image.width * image.height:
            break
        image, ink = image.crop((left, top, right, bottom)), None
    if ink is None:
        ink, _ = _ink(_grey(image, _DETAIL), direction)
    top, bottom, left, right = _bounds(ink)
    return ink[top:bottom, left:right]


def _search(image: Image, known: float | None) -> tuple[tuple[int, ...], float, Plane | None]:
    """Where ink is in a picture of mode L (left, top, right, bottom), its direction, and the ink in detail if that was
    found on the way: in a tiny picture it says which pixels these are, unless one is nearly in and nearly out."""
    if max(image.size) <= _TINY:
        ink, direction = _ink(_grey(image, _DETAIL), known)
        box = _box(ink, image, -_DOUBT)
        if box == _box(ink, image, _DOUBT):
            return box, direction, ink
    ink, direction = _ink(_grey(image, _SEARCH), known)
    return _box(ink, image, 0), direction, None


def _box(ink: Plane, image: Image, more: int) -> tuple[int, ...]:
    """Left, top, right and bottom of ink in the picture, with a margin of a fifth and `more` pixels of the ink."""
    top, bottom, left, right = _bounds(ink)
    scale = max(image.size) / max(ink.shape)
    margin = 0.2 * max(bottom - top, right - left) + more
    ends = zip((left - margin, top - margin, right + margin, bottom + margin), image.size * 2, strict=True)
    return tuple(int(np.clip(round(v * scale), 0, n)) for v, n in ends)


def fit_box(ink: Plane, box: int, size: int) -> Plane:
    """Ink scaled so that its longer side is `box`, in the centre of (size, size) pixels."""
    from PIL import Image as images

    scale = box / max(ink.shape)
    height, width = (max(1, round(n * scale)) for n in ink.shape)
    scaled = images.fromarray(ink).resize((width, height), images.Resampling.BILINEAR)
    result = np.zeros((size, size), np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    result[top : top + height, left : left + width] = np.asarray(scaled)
    return result


def _contrast(image: Image) -> Image:
    """A picture in grey (mode L): the mixture of its three channels in which details differ most from what is around.

    So red ink on green paper of the same lightness shows. A grey picture stays as it is.
    """
    from PIL import Image as images

    small = image.resize([min(64, n) for n in image.size], images.Resampling.BOX)
    around = small.resize([max(1, n // 8) for n in small.size], images.Resampling.BOX)
    around = around.resize(small.size, images.Resampling.BILINEAR)
    details = (np.asarray(small, np.float64) - np.asarray(around)).reshape(-1, 3)
    axis = np.linalg.eigh(details.T @ details)[1][:, -1] if details.any() else np.ones(3)
    axis = axis / abs(axis).sum() * (1 if axis.sum() >= 0 else -1)
    return image.convert("L", (*axis, -255 * axis.clip(max=0).sum()))


def _grey(image: Image, longest: int) -> Plane:
    """The picture with a longer side of `longest` pixels, from 0 to 1."""
    from PIL import Image as images

    scale = longest / max(image.size)
    width, height = (max(1, round(n * scale)) for n in image.size)
    kind = images.Resampling.BICUBIC if scale > 1 else images.Resampling.BOX
    return np.asarray(image.resize((width, height), kind), np.float32) / 255


def _ink(plane: Plane, known: float | None) -> tuple[Plane, float]:
    """How much each pixel is ink, 0 to 1, and its direction: 1 if it is lighter than the paper, -1 if darker.

    Ink is what differs from the paper around it, in the direction that is known, or more likely.
    """
    smooth = _blur(plane)
    reach = max(3, int(0.4 * max(plane.shape)))
    frame = reach // 2  # of paper around the picture, so that ink which touches the border is narrow too
    likely, framed = _on_paper(smooth, frame)
    direction = known or likely
    found = _separate(direction * framed, reach)
    if found is None:
        raise InputError(
            "there is no digit in the picture",
            expected="ink that differs from the paper",
            received="a picture of one colour",
        )
    if known is None and found.is_sheet():  # of paper on a table, and the ink on it differs the other way
        other = _separate(-direction * framed, reach)
        if other is not None and other.contrast > 0.5 * found.contrast and not other.is_sheet():
            return other.ink, -direction
    return found.ink, direction


class _Found(NamedTuple):
    """Ink, and how much it differs from the paper."""

    ink: Plane
    contrast: float

    def is_sheet(self) -> bool:
        """Whether it looks like a sheet rather than strokes: a large convex piece, but for a few holes."""
        mask = self.ink > 0.45
        small = mask[::2, ::2]
        count = int(np.count_nonzero(small))
        rows, columns = (np.flatnonzero(small.any(axis)) for axis in (1, 0))
        if 2 * (rows[-1] - rows[0]) < 0.4 * len(mask) or 2 * (columns[-1] - columns[0]) < 0.4 * mask.shape[1]:
            return False
        if any(count <= 0.85 * _between(m) for m in (small, small.T)):  # the hull is larger still
            return False
        y, x = np.nonzero(small)
        hull = np.ones(small.shape, bool)
        for angle in np.arange(8) * (np.pi / 8):
            cos, sin = np.cos(angle), np.sin(angle)
            along = cos * x + sin * y
            everywhere = cos * np.arange(small.shape[1]) + (sin * np.arange(len(small)))[:, None]
            hull &= (everywhere >= along.min() - 0.01) & (everywhere <= along.max() + 0.01)
        return count > 0.85 * int(np.count_nonzero(hull))


def _between(mask: Plane) -> int:
    """How many pixels lie in their row between the first and the last of the mask, these included."""
    some = mask[mask.any(1)]
    return int((mask.shape[1] - some[:, ::-1].argmax(1) - some.argmax(1)).sum())


def _separate(framed: Plane, reach: int) -> _Found | None:
    """What is lighter than around it in a plane with reach // 2 pixels of paper on each side; None if nothing is."""
    inside = slice(reach // 2, -(reach // 2))
    difference = framed[inside, inside] - _opening(framed, reach)
    above = difference > _otsu(difference)
    if not above.any() or float(difference.max()) < _FAINTEST:
        return None
    paper, full = float(np.median(difference[~above])), float(np.percentile(difference[above], 60))
    difference -= np.float32(paper)
    difference /= np.float32(max(full - paper, 1e-6))
    ink = np.clip(difference, 0, 1, out=difference)
    ink *= _connected(ink > 0.45)
    return _Found(ink, full - paper)


#: The powers of y and of x in the terms of a quadratic surface: 1, x, y, x², xy, y².
_OF_Y, _OF_X = np.array([0, 0, 1, 0, 1, 2]), np.array([0, 1, 0, 2, 1, 0])


def _on_paper(plane: Plane, frame: int) -> tuple[float, Plane]:
    """1 for ink lighter than the paper or -1 for darker, and the plane with `frame` pixels of paper on each side.

    The paper is a quadratic surface fitted to the pixels that agree with it best, beginning at the border. Sums over
    a grid of products of powers of x and y are two matrix products.
    """
    y, x = (np.linspace(-1, 1, n)[:: max(1, n // 48)] for n in plane.shape)
    values = plane[:: max(1, plane.shape[0] // 48), :: max(1, plane.shape[1] // 48)]
    of_y, of_x = np.vander(y, 5, increasing=True), np.vander(x, 5, increasing=True)
    border = np.maximum(abs(y)[:, None], abs(x)) > 0.95
    surface = np.full_like(values, np.median(values[border]))
    weights = np.zeros((3, 3))  # of powers of y and of x
    for count in (3, 3, 6, 6):
        error = abs(values - surface)
        middle = int(0.6 * (error.size - 1))
        kept = (error <= np.partition(error, middle, None)[middle]).astype(np.float64)
        i, j = _OF_Y[:count], _OF_X[:count]
        gram = (of_y.T @ kept @ of_x)[i[:, None] + i, j[:, None] + j]
        moments = (of_y[:, :3].T @ (kept * values) @ of_x[:, :3])[i, j]
        weights[i, j] = np.linalg.lstsq(gram, moments, rcond=1e-10)[0]
        surface = of_y[:, :3] @ weights @ of_x[:, :3].T
    residual = values - surface
    direction = 1.0 if (residual.clip(0) ** 2).sum() > (residual.clip(max=0) ** 2).sum() else -1.0
    y, x = (np.arange(-frame, n + frame) * (2 / max(n - 1, 1)) - 1 for n in plane.shape)
    of_one, of_x, of_xx = (np.vander(y, 3, increasing=True) @ weights).T[:, :, None]
    framed: Plane = np.empty((len(y), len(x)), np.float32)
    framed[frame:-frame, frame:-frame] = plane
    every, inner, first, last = slice(None), slice(frame, -frame), slice(frame), slice(-frame, None)
    for rows, columns in ((first, every), (last, every), (inner, first), (inner, last)):
        framed[rows, columns] = (of_xx[rows] * x[columns] + of_x[rows]) * x[columns] + of_one[rows]
    return direction, framed


def _blur(plane: Plane) -> Plane:
    """Weights 1, 2, 1 along both axes."""
    for _ in (0, 1):
        padded = np.concatenate([plane[:1], plane, plane[-1:]])
        plane = ((padded[:-2] + 2 * plane + padded[2:]) / 4).T
    return plane


def _opening(framed: Plane, reach: int) -> Plane:
    """The plane without a frame of reach // 2 pixels, and without what is lighter than its surroundings and narrower
    than `reach` (erosion, then dilation)."""
    opened = _extreme(np.maximum, _extreme(np.minimum, _spread(framed, reach, np.inf), reach), reach)
    frame = 2 * (reach // 2)
    return opened[: len(framed) - frame, : framed.shape[1] - frame]


def _spread(plane: Plane, reach: int, value: float) -> Plane:
    """A plane with so much of a value around it that each of its pixels is amid `reach` × `reach`."""
    wide: Plane = np.full([n + reach - 1 for n in plane.shape], value, plane.dtype)
    before = reach // 2
    wide[before : before + len(plane), before : before + plane.shape[1]] = plane
    return wide


def _extreme(of: np.ufunc, plane: Plane, reach: int) -> Plane:
    """The maximum or the minimum of each square of `reach` pixels in a plane (H, W), by doubling shifts:
    (H - reach + 1, W - reach + 1)."""
    spare, other = np.empty_like(plane), np.empty_like(plane)
    for axis in (0, 1):
        length = 1
        while length < reach:
            step = min(length, reach - length)
            near, far = (plane[:-step], plane[step:]) if axis == 0 else (plane[:, :-step], plane[:, step:])
            plane = of(near, far, out=spare[: len(near), : near.shape[1]])
            spare, other = other, spare
            length += step
    return plane


def _otsu(plane: Plane) -> float:
    """The threshold that splits the values into the two classes of least variance (Otsu, 1979)."""
    low, high = plane.min(), plane.max()
    edges = np.linspace(low, high, 129, dtype=plane.dtype)
    numbers = plane - low
    numbers *= 128 / max(high - low, np.float32(1e-30))
    counts = np.bincount(numbers.astype(np.uint8).reshape(-1), minlength=129)
    counts[127] += counts[128]  # the largest value
    counts = counts[:128]
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = plane.size - below
    total = np.cumsum(counts * centres)
    between = below * above * (total[:-1] / np.maximum(below, 1) - (total[-1] - total[:-1]) / np.maximum(above, 1)) ** 2
    return float(edges[1 + int(between.argmax())])


def _connected(mask: Plane) -> Plane:
    """The part of a mask that is the heaviest connected piece, with what of some weight is close to it; widened a bit.

    Pieces are found on a grid of at most 64 cells, so that small gaps in a stroke do not part it. A piece that
    touches the border counts less, and little where it runs along it: it is more often a table than a digit.
    """
    cell = -(-max(mask.shape) // 64)
    rows, columns = (-(-n // cell) for n in mask.shape)
    padded = np.zeros((rows * cell, columns * cell), np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    weight = padded.reshape(rows, cell, -1).sum(1, dtype=np.uint8).reshape(rows, columns, cell).sum(2)
    labels = _label(weight > 0)
    masses = np.bincount(labels.reshape(-1), weight.reshape(-1))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    on_edge = np.bincount(edge, minlength=len(masses)) / len(edge)
    likely = masses * np.where(on_edge == 0, 1.0, np.where(on_edge < 0.2, 0.3, 0.02))
    likely[0] = -1  # no piece
    main = int(likely.argmax())
    kept = labels == main
    top, bottom, left, right = _bounds(kept)
    longest = max(bottom - top, right - left)
    for label in np.flatnonzero((masses > 0.1 * masses[main]) & (on_edge < 0.2)):
        if label not in (0, main):
            upper, lower, west, east = _bounds(labels == label)
            gap = max(top - lower, upper - bottom, left - east, west - right)
            both = max(max(bottom, lower) - min(top, upper), max(right, east) - min(left, west))
            if gap < 0.15 * longest + 1 and both < 2 * longest + 1:
                kept |= labels == label
    wide = _extreme(np.maximum, _spread(kept, 3, False), 3).repeat(cell, 0).repeat(cell, 1)
    return wide[: mask.shape[0], : mask.shape[1]]


def _label(mask: Plane) -> Plane:
    """A number from 1 for each connected piece of a mask, diagonals included, and 0 elsewhere."""
    labels = np.where(mask, np.arange(1, mask.size + 1, dtype=np.int32).reshape(mask.shape), 0)
    while True:
        spread = np.where(mask, _extreme(np.maximum, _spread(labels, 3, 0), 3), 0)
        if (spread == labels).all():
            return labels
        labels = np.append(0, spread)[spread]  # each takes the label that its label's own cell has by now


def _bounds(ink: Plane) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is more than half ink, ends excluded."""
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
