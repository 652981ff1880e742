"""Which of many overlapping boxes greedy suppression keeps, without comparing each with each.

Two boxes whose IoU exceeds t have widths and heights of which neither is more than 1 / t times the other, and centers
that are near for such sizes. So boxes are sorted into cells by group, level of height, level of width, and row of the
picture, and within a cell into buckets along x; what may overlap a box lies in few ranges of that order.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np

__all__ = ["descending", "greedy", "soften", "threshold_of"]

#: Most pairs of boxes that are compared at one time: what fits the caches.
_PAIRS = 1 << 15
#: Where fewer pairs are expected, all are compared at once, else the best boxes first remove what they can.
_FEW = 600_000
#: Pairs that each such round aims at.
_ROUND = 450_000
#: Boxes that a row of a cell should have at least, most rows and levels, and the bits of a place along a row.
_FILL, _ROWS, _LEVELS, _BITS = 6, 250, 64, 16
#: More than IoU may lose by rounding.
_ROUNDING = 1e-5


def threshold_of(threshold: float, dtype: Any) -> Any:
    """The largest number of the dtype that is not above the threshold: comparing with either gives the same."""
    rounded = dtype.type(threshold)
    return np.nextafter(rounded, dtype.type(-1)) if float(rounded) > threshold else rounded


def descending(xp: Any, scores: Any) -> Any:
    """The order of scores from high to low: NaN first, of equal ones the first one first."""
    if scores.dtype != np.float32:
        reverse = xp.argsort(scores[::-1], kind="stable" if xp is np else None)[::-1]
        return len(scores) - 1 - reverse
    # Bits of floats sort as integers do; with the place behind them any sort is stable, and faster than argsort.
    bits = xp.where(xp.isnan(scores), np.float32(np.nan), scores + np.float32(0)).view(np.int32)
    keys = ~xp.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    return xp.sort((keys << 32) | xp.arange(len(scores))) & 0xFFFFFFFF


def _order(xp: Any, keys: Any) -> Any:
    """The order of integers from 0, which need not be stable."""
    bits = len(keys).bit_length()
    if int(keys.max()).bit_length() + bits > 62:
        return xp.argsort(keys)
    return xp.sort((keys << bits) | xp.arange(len(keys))) & ((1 << bits) - 1)


class _Lengths:
    """Widths or heights in levels: those of a ratio above t lie in one level or in neighbours."""

    def __init__(self, xp: Any, lengths: Any, threshold: float) -> None:
        self.xp, self.threshold = xp, threshold
        least, most = float(lengths.min()), float(lengths.max())
        self.apart = -log(threshold) if threshold > 0.02 else 0.0
        self.single = self.apart == 0 or most <= 1.7 * least
        self.lengths, self.logs = lengths, lengths
        self.levels = xp.zeros(len(lengths), np.int64)
        longest = np.full(1, most)
        if not self.single:
            self.logs = xp.log(lengths) - log(least)
            extent = log(most) - log(least)
            self.step = max(2 * self.apart, 0.7, extent / _LEVELS)
            self.levels = (self.logs / self.step).astype(np.int64)
            with np.errstate(over="ignore"):
                edges = least * np.exp(self.step * np.arange(1, int(extent / self.step) + 2)) * (1 + _ROUNDING)
            longest = np.minimum(edges, most)
        self.count, self.longest = len(longest), xp.asarray(longest)

    def take(self, chosen: Any) -> None:
        """Keep some of the lengths."""
        self.lengths, self.logs, self.levels = (x.take(chosen) for x in (self.lengths, self.logs, self.levels))

    def near(self, chosen: Any) -> list[Any]:
        """The levels, one or two, in which the partners of some lengths lie."""
        if self.single:
            return [self.levels.take(chosen)]
        logs = self.logs.take(chosen)
        low = self.xp.maximum((logs - self.apart) / self.step, 0).astype(np.int64)
        return [low, self.xp.minimum(((logs + self.apart) / self.step).astype(np.int64), self.count - 1)]

    def reach(self, lengths: Any, levels: Any) -> Any:
        """How far the centers of partners in a level may be: (a + b) / 2 · (1 - t) / (1 + t) for lengths a and b."""
        longest = self.longest.take(levels)
        if self.threshold > 0:
            longest = self.xp.minimum(lengths / self.threshold, longest)
        return (lengths + longest) * (0.5 * (1 - self.threshold) / (1 + self.threshold))


def _centers(xp: Any, low: Any, high: Any) -> tuple[Any, float, float]:
    """Centers of intervals from 0 in float64, their extent, and more than rounding may move them."""
    largest = float(xp.maximum(xp.abs(low), xp.abs(high)).max())
    centers = low.astype(np.float64) * 0.5 + high.astype(np.float64) * 0.5
    if largest > 1e200:  # differences could overflow; then all are near each other
        return xp.zeros_like(centers), 0.0, 0.0
    centers = centers - centers.min()
    return centers, float(centers.max()), max(largest * 1e-9, 1e-300)


class _Cells:
    """Boxes that may still be kept, sorted by cell and by center along x.

    ranks: the place of each in the order of scores. table: (5, n) corners and areas. own, along: the cell and the place
    on x of each. starts: where each bucket begins, of each cell that has boxes; these cells are numbered by slots.
    low, high: intervals around the centers along y, float32, that share a point where boxes are near enough.
    """

    def __init__(self, xp: Any, corners: list[Any], ranks: Any, groups: Any, threshold: float) -> None:
        self.xp, self.threshold = xp, threshold
        safe = threshold * (1 - _ROUNDING)
        x1, y1, x2, y2 = corners
        self.widths = _Lengths(xp, x2.astype(np.float64) - x1, safe)
        self.heights = _Lengths(xp, y2.astype(np.float64) - y1, safe)
        self.x, across, self.slack_x = _centers(xp, x1, x2)
        self.y, down, self.slack_y = _centers(xp, y1, y2)
        self.groups = groups
        self.last = (1 << _BITS) - 1
        self.scale = self.last / max(across, 1e-300)
        tall = 2 * self.heights.reach(self.heights.longest, xp.arange(self.heights.count)) + 4 * self.slack_y
        if safe > 0:
            # A box of the level above, whose height is up to 1 / t times as great, must not see three rows.
            most = self.heights.longest[-1:]
            above = xp.minimum(self.heights.longest / safe, most)
            tall = xp.maximum(tall, (above + self.heights.longest) * ((1 - safe) / (1 + safe)) + 4 * self.slack_y)
        share = xp.bincount(self.heights.levels, minlength=self.heights.count) / self.widths.count
        tall = xp.maximum(xp.maximum(tall, down / _ROWS), down * _FILL / xp.maximum(share, _FILL))
        # Rows of higher levels are no narrower, so that a box sees at most two of them.
        tall = np.maximum.accumulate(tall) if xp is np else xp.asarray(np.maximum.accumulate(tall.get()))
        self.tall = xp.maximum(tall, 1e-300)
        self.rows = min(int(down / float(self.tall.min())) + 1, _ROWS + 1)
        own = self._cells(slice(None), self.heights.levels, self.widths.levels, self.y)
        self.own, self.along, self.ranks = own, self._along(self.x), ranks
        self.table = xp.stack([*corners, (x2 - x1) * (y2 - y1)])
        half = self.heights.lengths * (0.5 * (1 - safe) / (1 + safe)) * (1 + _ROUNDING) + (self.slack_y + down * 1e-6)
        self.low, self.high = (self.y - half).astype(np.float32), (self.y + half).astype(np.float32)
        self.keep(_order(xp, (own << _BITS) | self.along))

    def __len__(self) -> int:
        return len(self.own)

    def keep(self, chosen: Any) -> None:
        """Keep some boxes, in the order given."""
        self.own, self.along, self.ranks = (x.take(chosen) for x in (self.own, self.along, self.ranks))
        self.x, self.y, self.table = self.x.take(chosen), self.y.take(chosen), self.table.take(chosen, 1)
        self.low, self.high = self.low.take(chosen), self.high.take(chosen)
        self.groups = None if self.groups is None else self.groups.take(chosen)
        self.widths.take(chosen)
        self.heights.take(chosen)
        if len(chosen):
            self._fill()

    def _fill(self) -> None:
        """Sort the boxes into buckets, two or more per box."""
        xp = self.xp
        new = xp.ones(len(self), bool)
        new[1:] = self.own[1:] != self.own[:-1]
        self.cells = self.own[new]
        self.bits = min((len(self) // len(self.cells)).bit_length() + 1, _BITS)
        buckets = ((xp.cumsum(new) - 1) << self.bits) + (self.along >> (_BITS - self.bits)) + 1
        self.starts = xp.cumsum(xp.bincount(buckets, minlength=(len(self.cells) << self.bits) + 1))
        count = int(self.cells[-1]) + 1
        self.slots = None
        if count < 8 * len(self):
            self.slots = xp.full(count + 1, len(self.cells))
            self.slots[self.cells] = xp.arange(len(self.cells))

    def _slots(self, cells: Any) -> tuple[Any, Any]:
        """The slots of cells, and which of them have boxes."""
        if self.slots is not None:
            slots = self.slots.take(self.xp.minimum(cells, len(self.slots) - 1))
            return slots, slots < len(self.cells)
        slots = self.xp.minimum(self.xp.searchsorted(self.cells, cells), len(self.cells) - 1)
        return slots, self.cells.take(slots) == cells

    def _cells(self, chosen: Any, heights: Any, widths: Any, y: Any) -> Any:
        """The cells at y in levels of height and width, in the groups of some boxes."""
        rows = self.xp.clip(y / self.tall.take(heights), 0, self.rows - 1).astype(np.int64)
        levels = heights * self.widths.count + widths
        if self.groups is not None:
            levels = levels + self.groups[chosen] * (self.widths.count * self.heights.count)
        return levels * self.rows + rows

    def _along(self, x: Any) -> Any:
        return self.xp.clip(x * self.scale, 0, self.last).astype(np.int64)

    def ranges(self, chosen: Any, later: bool) -> tuple[Any, Any, Any]:
        """Ranges of the order in which some boxes' partners lie: places of the boxes, starts and lengths.

        later: only what stands behind a box, so that each pair comes once.
        """
        xp, found = self.xp, []
        heights, widths = self.heights.near(chosen), self.widths.near(chosen)
        for h in heights:
            for w in widths:
                some = xp.ones(len(chosen), bool)
                if h is not heights[0]:
                    some &= h != heights[0]
                if w is not widths[0]:
                    some &= w != widths[0]
                new = some.nonzero()[0]
                found += self._in_levels(chosen.take(new), h.take(new), w.take(new), later)
        places, first, counts = (xp.concatenate(each) for each in zip(*found, strict=True))
        some = (counts > 0).nonzero()[0]
        return places.take(some), first.take(some), counts.take(some)

    def _in_levels(self, chosen: Any, h: Any, w: Any, later: bool) -> list[tuple[Any, Any, Any]]:
        """The ranges in one level of height and of width, for each box in one row or two."""
        xp, found = self.xp, []
        x, y = self.x.take(chosen), self.y.take(chosen)
        reach_x = self.widths.reach(self.widths.lengths.take(chosen), w) + self.slack_x
        reach_y = self.heights.reach(self.heights.lengths.take(chosen), h) + self.slack_y
        low, high = (self._along(x + move) >> (_BITS - self.bits) for move in (-reach_x, reach_x))
        upper, lower = (self._cells(chosen, h, w, y + move) for move in (-reach_y, reach_y))
        for cell, new in ((upper, upper >= 0), (lower, lower != upper)):
            slots, filled = self._slots(cell)
            some = (new & filled & (cell >= self.own.take(chosen)) if later else new & filled).nonzero()[0]
            places, base = chosen.take(some), slots.take(some) << self.bits
            first, end = self.starts.take(base + low.take(some)), self.starts.take(base + high.take(some) + 1)
            if later:
                first = xp.maximum(first, places + 1)
            found.append((places, first, end - first))
        return found

    def overlaps(self, places: Any, first: Any, counts: Any) -> tuple[Any, Any]:
        """Pairs of places that overlap by more than the threshold, of boxes with what lies in their ranges.

        Ranges of about one length are compared as a rectangle, without a list of all pairs.
        """
        xp = self.xp
        order = _order(xp, counts) if len(counts) else counts
        places, first, counts = places.take(order), first.take(order), counts.take(order)
        ones, others = [places[:0]], [places[:0]]
        stop = len(places)
        while stop:
            longest = int(counts[stop - 1])
            start = max(0, stop - max(1, _PAIRS // longest))
            one, other = self._rectangle(longest, places[start:stop], first[start:stop], counts[start:stop])
            ones.append(one)
            others.append(other)
            stop = start
        return xp.concatenate(ones), xp.concatenate(others)

    def _rectangle(self, longest: int, places: Any, first: Any, counts: Any) -> tuple[Any, Any]:
        xp = self.xp
        begin = xp.minimum(first, len(self) - longest)
        flat = longest > len(places)  # the longer side lies along memory
        steps = xp.arange(longest)
        j = begin[:, None] + steps if flat else begin + steps[:, None]
        low, high = self.low.take(places), self.high.take(places)
        near = self.low.take(j) <= (high[:, None] if flat else high)
        near &= self.high.take(j) >= (low[:, None] if flat else low)
        some = near.reshape(-1).nonzero()[0]
        row = some // j.shape[1]
        which = row if flat else some - row * j.shape[1]
        i, j = places.take(which), j.reshape(-1).take(some)
        x1, y1, x2, y2, areas = self.table
        width = xp.minimum(x2.take(i), x2.take(j)) - xp.maximum(x1.take(i), x1.take(j))
        height = xp.minimum(y2.take(i), y2.take(j)) - xp.maximum(y1.take(i), y1.take(j))
        shared = width * height
        with np.errstate(all="ignore"):
            iou = shared / (areas.take(j) + areas.take(i) - shared)
        # Both sides may be negative, which is cheaper to see in the few that are found than to prevent in all.
        hits = ((iou > threshold_of(self.threshold, iou.dtype)) & (height > 0)).nonzero()[0]
        i, j, which = i.take(hits), j.take(hits), which.take(hits)
        past = j - first.take(which)
        valid = ((past >= 0) & (past < counts.take(which))).nonzero()[0]
        return i.take(valid), j.take(valid)


def _resolve(xp: Any, count: int, above: Any, below: Any) -> Any:
    """Which of `count` boxes greedy choice keeps, where above[p] suppresses below[p] if it is itself kept.

    In each round the boxes that no undecided one is above are kept, and what they suppress goes.
    """
    kept = xp.ones(count, bool)
    while len(above):
        blocked = xp.zeros(count, bool)
        blocked[below] = True
        free = ~blocked[above]
        gone = xp.zeros(count, bool)
        gone[below[free]] = True
        kept &= ~gone
        left = (~(free | gone[above] | gone[below])).nonzero()[0]
        above, below = above.take(left), below.take(left)
    return kept


def greedy(xp: Any, boxes: Any, groups: Any, threshold: float) -> Any:
    """Which boxes are kept, (n,) bool.

    boxes: (n, 4) floating corners, best first. groups: (n,) integers from 0, or None.

    A box without an area, or with an infinite one, is kept.
    """
    corners = [boxes[:, i] for i in range(4)]
    areas = (corners[2] - corners[0]) * (corners[3] - corners[1])
    proper = (corners[2] > corners[0]) & (corners[3] > corners[1]) & (areas > 0) & (areas < xp.inf)
    kept = ~proper
    ranks = proper.nonzero()[0]
    if not len(ranks):
        return kept
    groups = None if groups is None else groups.take(ranks)
    cells = _Cells(xp, [corner.take(ranks) for corner in corners], ranks, groups, threshold)
    leaders = 4
    while len(cells):
        count = min(leaders, len(cells))
        best = (cells.ranks <= xp.sort(cells.ranks)[count - 1]).nonzero()[0]
        ranges = cells.ranges(best, later=False)
        expected = int(ranges[2].sum()) / count
        if expected * len(cells) / 2 < _FEW:
            one, other = cells.overlaps(*cells.ranges(xp.arange(len(cells)), later=True))
            swapped = cells.ranks.take(one) > cells.ranks.take(other)
            above, below = xp.where(swapped, other, one), xp.where(swapped, one, other)
            kept[cells.ranks[_resolve(xp, len(cells), above, below)]] = True
            break
        above, below = cells.overlaps(*ranges)
        lower = (cells.ranks.take(above) < cells.ranks.take(below)).nonzero()[0]
        above, below = above.take(lower), below.take(lower)
        number = xp.full(len(cells), -1)
        number[best] = xp.arange(count)
        above, among = number.take(above), (number.take(below) >= 0).nonzero()[0]
        wins = _resolve(xp, count, above.take(among), number.take(below.take(among)))
        kept[cells.ranks[best[wins]]] = True
        left = xp.ones(len(cells), bool)
        left[best] = False
        left[below[wins[above]]] = False
        cells.keep(left.nonzero()[0])
        leaders = int(min(max(4, _ROUND / max(expected, 1)), 8 * count))
    return kept


def soften(
    xp: Any, boxes: Any, scores: Any, groups: Any, decay: Callable[[Any], Any], least: float, limit: int
) -> tuple[Any, Any]:
    """Places of boxes and their scores, best first, where each that is taken lowers the scores of what overlaps it.

    boxes: (n, 4) corners. groups: (n,) integers from 0, or None; boxes of one group lower each other. decay: from IoU
    to a factor. Scores that are not above least go. limit: most boxes that are taken.
    """
    chosen: list[Any] = []
    values: list[Any] = []
    left = (scores > least).nonzero()[0]
    if not len(left) or limit < 1:
        return xp.empty(0, np.int64), xp.empty(0, scores.dtype)
    sides = boxes.take(left, 0).astype(np.float64)
    middles = sides[:, 0] * 0.5 + sides[:, 2] * 0.5
    half = float(xp.maximum(xp.abs(sides[:, 2] - sides[:, 0]).max(), 0)) * (1 + _ROUNDING)
    step = float(middles.max()) - float(middles.min()) + 4 * half
    keys = middles - middles.min() + (0 if groups is None else groups.take(left) * step)
    keys = xp.where(xp.isfinite(keys), keys, 0.0)
    half = half + float(xp.abs(keys).max()) * 1e-12
    order = xp.argsort(keys)
    left, keys, current = left.take(order), keys.take(order), scores.take(left.take(order))
    x1, y1, x2, y2 = boxes.take(left, 0).T.copy()
    areas = (x2 - x1) * (y2 - y1)
    while len(left) and len(chosen) < limit:
        best = current.max()
        if not best > least:
            break
        tops = (current == best).nonzero()[0]
        top = int(tops[0]) if len(tops) == 1 else int(tops[left.take(tops).argmin()])
        chosen.append(left[top : top + 1])
        values.append(current[top : top + 1].copy())
        current[top] = -np.inf
        some = slice(*(int(xp.searchsorted(keys, keys[top] + move)) for move in (-half, half)))
        width = xp.minimum(x2[some], x2[top]) - xp.maximum(x1[some], x1[top])
        height = xp.minimum(y2[some], y2[top]) - xp.maximum(y1[some], y1[top])
        shared = xp.maximum(width, 0) * xp.maximum(height, 0)
        iou = xp.where(shared > 0, shared / xp.where(shared > 0, areas[some] + areas[top] - shared, 1), 0)
        now = current[some]
        current[some] = xp.where(now > least, now * decay(iou).astype(now.dtype), -np.inf)
        if len(chosen) % 32 == 0:
            alive = (current > least).nonzero()[0]
            left, keys, current, areas = (x.take(alive) for x in (left, keys, current, areas))
            x1, y1, x2, y2 = (x.take(alive) for x in (x1, y1, x2, y2))
    return xp.concatenate(chosen), xp.concatenate(values)
