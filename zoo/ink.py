"""Ink: find what is written in a picture, whatever its size, polarity and light, and bring it to one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoonet.ops.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Plane = np.ndarray[Any, Any]  # float32 (height, width)
_SEARCH, _DETAIL = 256, 96  # longer side, in pixels, at which a digit is looked for, and at which it is cut out
_FAINTEST = 0.03  # of the range from black to white: less contrast is no ink


def find_ink(image: Image) -> Plane:
    """The writing in a picture of mode RGB, cut to its bounding box: 1 is ink, 0 is paper, longer side about 60 to 96.

    Raises InputError where the picture has one colour.
    """
    image = _contrast(image)
    direction = None
    for _ in range(2):  # once in the whole picture, once in what was found
        plane = _grey(image, _SEARCH)
        ink, direction = _ink(plane, direction)
        top, bottom, left, right = _bounds(ink)
        scale = max(image.size) / max(plane.shape)
        margin = 0.2 * max(bottom - top, right - left)
        box = (left - margin, top - margin, right + margin, bottom + margin)
        limits = (*image.size, *image.size)
        x0, y0, x1, y1 = (int(np.clip(round(v * scale), 0, n)) for v, n in zip(box, limits, strict=True))
        if (x1 - x0) * (y1 - y0) > 0.9 * image.width * image.height:
            break
        image = image.crop((x0, y0, x1, y1))
    ink, _ = _ink(_grey(image, _DETAIL), direction)
    top, bottom, left, right = _bounds(ink)
    return ink[top:bottom, left:right]


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
    likely, framed = _paper(smooth, frame)
    direction = known or likely
    framed[frame:-frame, frame:-frame] = smooth
    found = _separate(direction * framed, reach)
    if found is None:
        raise InputError(
            "there is no digit in the picture",
            expected="ink that differs from the paper",
            received="a picture of one colour",
        )
    if found.sheet and known is None:  # of paper on a table, and the ink on it differs the other way
        other = _separate(-direction * framed, reach)
        if other is not None and not other.sheet and other.contrast > 0.5 * found.contrast:
            return other.ink, -direction
    return found.ink, direction


class _Found(NamedTuple):
    """Ink, how much it differs from the paper, and whether it looks like a sheet rather than strokes."""

    ink: Plane
    contrast: float
    sheet: bool


def _separate(framed: Plane, reach: int) -> _Found | None:
    """What is lighter than around it in a plane with reach // 2 pixels of paper on each side; None if nothing is."""
    inside = slice(reach // 2, -(reach // 2))
    difference = (framed - _opening(framed, reach))[inside, inside]
    above = difference > _otsu(difference)
    if not above.any() or float(difference.max()) < _FAINTEST:
        return None
    paper, full = float(np.median(difference[~above])), float(np.percentile(difference[above], 60))
    ink = np.clip((difference - paper) / max(full - paper, 1e-6), 0, 1).astype(np.float32)
    ink *= _connected(ink > 0.45)
    return _Found(ink, full - paper, _is_sheet(ink > 0.45))


def _is_sheet(mask: Plane) -> bool:
    """True where a mask is a large convex piece, but for a few holes."""
    y, x = np.nonzero(mask[::2, ::2])
    if 2 * np.ptp(y) < 0.4 * len(mask) or 2 * np.ptp(x) < 0.4 * mask.shape[1]:
        return False
    rows, columns = np.mgrid[0 : (len(mask) + 1) // 2, 0 : (mask.shape[1] + 1) // 2]
    hull = np.ones(rows.shape, bool)
    for angle in np.arange(8) * (np.pi / 8):
        along = np.cos(angle) * x + np.sin(angle) * y
        everywhere = np.cos(angle) * columns + np.sin(angle) * rows
        hull &= (everywhere >= along.min() - 0.01) & (everywhere <= along.max() + 0.01)
    return len(x) > 0.85 * int(hull.sum())


def _paper(plane: Plane, frame: int) -> tuple[float, Plane]:
    """1 for ink lighter than the paper or -1 for darker, and the paper, `frame` pixels larger on each side.

    The paper is a quadratic surface fitted to the pixels that agree with it best, beginning at the border.
    """
    rows, columns = (np.linspace(-1, 1, n) for n in plane.shape)
    down, across = (max(1, n // 48) for n in plane.shape)
    values = plane[::down, ::across].reshape(-1)
    terms = _quadratic(rows[::down], columns[::across])
    edge = abs(terms[:, 1:3]).max(1) > 0.95
    surface = np.full_like(values, np.median(values[edge]))
    for count in (3, 3, 6, 6):
        error = abs(values - surface)
        kept = error <= np.quantile(error, 0.6)
        weights = np.zeros(6)
        weights[:count] = np.linalg.lstsq(terms[kept, :count], values[kept], rcond=None)[0]
        surface = terms @ weights
    residual = values - surface
    direction = 1.0 if (residual.clip(0) ** 2).sum() > (residual.clip(max=0) ** 2).sum() else -1.0
    y, x = (np.arange(-frame, n + frame) * (2 / max(n - 1, 1)) - 1 for n in plane.shape)
    along_x, along_y = weights[0] + weights[1] * x + weights[3] * x * x, weights[2] * y + weights[5] * y * y
    return direction, (along_x + along_y[:, None] + (weights[4] * y)[:, None] * x).astype(np.float32)


def _quadratic(y: Plane, x: Plane) -> Plane:
    """1, x, y, x², xy, y² at each point of a grid: (H·W, 6)."""
    y, x = (grid.reshape(-1) for grid in np.meshgrid(y, x, indexing="ij"))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)


def _blur(plane: Plane) -> Plane:
    """Weights 1, 2, 1 along both axes."""
    for _ in (0, 1):
        padded = np.pad(plane, ((1, 1), (0, 0)), mode="edge")
        plane = ((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4).T
    return plane


def _opening(plane: Plane, reach: int) -> Plane:
    """The plane without what is lighter than its surroundings and narrower than `reach` (erosion, then dilation)."""
    return _dilate(-_dilate(-plane, reach), reach)


def _dilate(plane: Plane, reach: int) -> Plane:
    """The maximum over squares of `reach` pixels around each pixel, by doubling shifts."""
    for _ in (0, 1):
        height = len(plane)
        padded = np.pad(plane, ((reach // 2, reach - 1 - reach // 2), (0, 0)), mode="edge")
        length = 1
        while length < reach:
            step = min(length, reach - length)
            padded = np.maximum(padded[:-step], padded[step:])
            length += step
        plane = np.ascontiguousarray(padded[:height].T)
    return plane


def _otsu(plane: Plane) -> float:
    """The threshold that splits the values into the two classes of least variance (Otsu, 1979)."""
    counts, edges = np.histogram(plane, 128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    valid = (below > 0) & (above > 0)
    between = np.where(
        valid,
        below * above * (total[:-1] / np.maximum(below, 1) - (total[-1] - total[:-1]) / np.maximum(above, 1)) ** 2,
        -1,
    )
    return float(edges[1 + int(between.argmax())])


def _connected(mask: Plane) -> Plane:
    """The part of a mask that is the heaviest connected piece, with what of some weight is close to it; widened a bit.

    Pieces are found on a grid of at most 64 cells, so that small gaps in a stroke do not part it. A piece that
    touches the border counts less, and little where it runs along it: it is more often a table than a digit.
    """
    cell = -(-max(mask.shape) // 64)
    rows, columns = (-(-n // cell) for n in mask.shape)
    padded = np.zeros((rows * cell, columns * cell), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    weight = padded.reshape(rows, cell, columns, cell).sum((1, 3))
    labels = np.where(weight > 0, np.arange(1, weight.size + 1).reshape(weight.shape), 0)
    while True:
        spread = np.where(weight > 0, _dilate(labels, 3), 0)
        if (spread == labels).all():
            break
        labels = np.append(0, spread)[spread]  # each takes the label that its label's own cell has by now
    found = np.unique(labels[labels > 0])
    masses = {int(n): float(weight[labels == n].sum()) for n in found}
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    on_edge = {n: float((edge == n).mean()) for n in masses}
    main = max(masses, key=lambda n: masses[n] * (1.0 if not on_edge[n] else 0.3 if on_edge[n] < 0.2 else 0.02))
    kept = labels == main
    top, bottom, left, right = _bounds(kept)
    longest = max(bottom - top, right - left)
    for label, mass in masses.items():
        if label != main and mass > 0.1 * masses[main] and on_edge[label] < 0.2:
            upper, lower, west, east = _bounds(labels == label)
            gap = max(top - lower, upper - bottom, left - east, west - right)
            both = max(max(bottom, lower) - min(top, upper), max(right, east) - min(left, west))
            if gap < 0.15 * longest + 1 and both < 2 * longest + 1:
                kept |= labels == label
    wide = np.repeat(np.repeat(_dilate(kept.astype(np.float32), 3), cell, 0), cell, 1)
    return wide[: mask.shape[0], : mask.shape[1]]


def _bounds(ink: Plane) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is more than half ink, ends excluded."""
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
