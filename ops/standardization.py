"""Bringing an array to mean 0 and variance 1 over axes: what batch, layer, group and instance norm share.

The computation runs in blocks that stay in a core's cache; a gradient keeps only the input and the statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, prod
from typing import Any

from zoonet.ops.elementwise import add, divide, multiply, sqrt, subtract
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.gradients import vjp
from zoonet.ops.reductions import mean, normalize_axes
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import op
from zoonet.ops.samples import float_values, floats, sample
from zoonet.ops.types import Array, DType, TensorType, float32, is_floating, is_low_precision

__all__ = ["standardize", "standardize_gradient"]

#: Elements per block of the temporaries: they stay in a core's cache.
_BLOCK = 1 << 18


def require_floating(name: str, **operands: Any) -> None:
    for label, operand in operands.items():
        if operand is not None and not is_floating(operand.dtype):
            raise DTypeError(
                f"{name} takes floating arrays",
                expected=f"{label} of a floating dtype",
                received=operand.dtype.name,
                fix="cast it to float32",
            )


def require_eps(name: str, eps: float) -> None:
    if not 0 <= eps < inf:
        raise ArgumentError(f"{name}: eps must not be negative", expected="a small number", received=eps)


def _blocks(x: Any) -> Iterator[slice]:
    """Slices along the first axis of about _BLOCK elements each."""
    step = 1 if x.size == 0 else int(_BLOCK * x.shape[0] // x.size) or 1
    for start in range(0, x.shape[0], step):
        yield slice(start, start + step)


def _part(array: Any, block: slice) -> Any:
    """The part of an operand that meets a block of the array that it broadcasts against."""
    return array if array is None or array.shape[0] == 1 else array[block]


def _moments(xp: Any, x: Any, axes: tuple[int, ...], centered: bool) -> tuple[Any, Any]:
    """Mean (zeros if not centered) and mean square of the deviations from it, axes kept."""
    shape = tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
    count = prod(x.shape[i] for i in axes) or 1
    center, variance = xp.zeros(shape, x.dtype), xp.zeros(shape, x.dtype)
    if centered:
        for block in _blocks(x):
            _part(center, block)[...] += x[block].sum(axis=axes, keepdims=True)
        center /= count
    for block in _blocks(x):
        deviation = x[block] - _part(center, block) if centered else x[block].copy()
        xp.square(deviation, out=deviation)
        _part(variance, block)[...] += deviation.sum(axis=axes, keepdims=True)
    variance /= count
    return center, variance


@op(
    samples=[
        sample(floats(3, 5)),
        sample(floats(4, 5), floats(1, 5), floats(1, 5), (-1,), 1e-3),
        sample(floats(3, 2, 4), floats(1, 2, 1), floats(1, 2, 1), (0, 2)),
        sample(floats(2, 2, 3, 2), floats(1, 2, 3, 1), None, (2, 3), 1e-6),
        sample(floats(3, 4), floats(1, 4), None, (1,), 1e-6, False),
        sample(floats(3, 4), None, floats(1, 1), (1,), 1e-6),
    ]
)
def standardize(
    xp: Any,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    axis: int | Sequence[int] = (-1,),
    eps: float = 1e-5,
    centered: bool = True,
) -> tuple[Array, Array, Array]:
    """x brought to mean 0 and variance 1 over axes, times weight plus bias: what the other normalisations share.

    x: any shape, floating; weight, bias: as many axes as x, each of size 1 or x's, of one shape -> (y, mean,
    variance): y as x, the (biased) moments with their axes kept as size 1, float32 for 16-bit x. centered=False:
    the mean is taken as 0 and returned as zeros. Raises ShapeError, DTypeError, ArgumentError.
    """
    axes = normalize_axes("standardize", x.ndim, axis)
    center, variance = _moments(xp, x, axes, centered)
    rstd = 1 / xp.sqrt(variance + eps)
    y = xp.empty_like(x)
    for block in _blocks(x):
        part = xp.subtract(x[block], _part(center, block), out=y[block]) if centered else y[block]
        factor, scale = _part(rstd, block), _part(weight, block)
        if weight is not None and prod(map(_larger, factor.shape, scale.shape)) * 2 <= part.size:
            factor, scale = factor * scale, None  # as cheap as one of them: one pass less
        xp.multiply(part if centered else x[block], factor, out=part)
        if scale is not None:
            part *= scale
        if bias is not None:
            part += _part(bias, block)
    return y, center, variance


def _larger(first: int, second: int) -> int:
    return first if first > second else second


def _statistics_type(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    dtype: DType = float32 if is_low_precision(x.dtype) else x.dtype
    return TensorType(tuple(1 if i in axes else n for i, n in enumerate(x.shape)), dtype)


@standardize.type
def _(
    x: TensorType,
    weight: TensorType | None,
    bias: TensorType | None,
    axis: int | Sequence[int],
    eps: float,
    centered: bool,
) -> tuple[TensorType, TensorType, TensorType]:
    require_floating("standardize", x=x, weight=weight, bias=bias)
    require_eps("standardize", eps)
    axes = normalize_axes("standardize", x.ndim, axis)
    given = [p.shape for p in (weight, bias) if p is not None]
    for shape in given:
        fits = len(shape) == x.ndim and all(n in (1, m) for n, m in zip(shape, x.shape, strict=True))
        if not fits or shape != given[0]:
            raise ShapeError(
                "standardize: weight or bias does not fit x",
                expected=f"equal shapes of {x.ndim} axes, each of size 1 or that of {x.shape}",
                received=" and ".join(map(str, given)),
            )
    statistics = _statistics_type(x, axes)
    return x, statistics, statistics


standardize.vjp_outputs = (1, 2)  # y itself is not needed, so a gradient keeps x and the statistics only


@standardize.vjp
def _(
    gy: tuple[Array, Array, Array],
    y: tuple[Any, Array, Array],
    x: Array,
    weight: Array | None,
    _bias: Array | None,
    axis: int | Sequence[int],
    eps: float,
    centered: bool,
) -> Any:
    affine = weight if weight is not None else _bias
    shape = None if affine is None else tuple(affine.shape)
    gx, gweight, gbias = standardize_gradient(*gy, x, weight, y[1], y[2], axis, eps, centered, shape)
    return gx, None if weight is None else gweight, None if _bias is None else gbias


_X = [[1.0, 2.0, 3.0, 6.0], [0.0, -2.0, 1.0, -3.0]]
_ROW_MEAN, _ROW_VARIANCE = float_values([[3.0], [-1.0]]), float_values([[3.5], [2.5]])
_TOTAL_MEAN, _TOTAL_VARIANCE = float_values([[1.0]]), float_values([[7.0]])
_COLUMN_MEAN = float_values([[0.5, 0.0, 2.0, 1.5]])
_COLUMN_VARIANCE = float_values([[0.25, 4.0, 1.0, 20.25]])


@op(
    samples=[
        sample(floats(2, 4), floats(2, 1), floats(2, 1), float_values(_X), None, _ROW_MEAN, _ROW_VARIANCE),
        sample(
            floats(2, 4),
            floats(2, 1),
            floats(2, 1),
            float_values(_X),
            floats(1, 4),
            _ROW_MEAN,
            _ROW_VARIANCE,
            (-1,),
            1e-3,
            True,
            (1, 4),
        ),
        sample(
            floats(2, 4),
            floats(1, 4),
            floats(1, 4),
            float_values(_X),
            floats(1, 4),
            _COLUMN_MEAN,
            _COLUMN_VARIANCE,
            (0,),
            1e-3,
            True,
            (1, 4),
        ),
        sample(
            floats(2, 4),
            floats(1, 1),
            floats(1, 1),
            float_values(_X),
            None,
            _TOTAL_MEAN,
            _TOTAL_VARIANCE,
            (0, 1),
            1e-3,
            True,
            (2, 1),
        ),
        sample(
            floats(2, 4),
            float_values([[0.0], [0.0]]),
            floats(2, 1),
            float_values(_X),
            floats(1, 4),
            float_values([[0.0], [0.0]]),
            float_values([[12.5], [3.5]]),
            (1,),
            1e-3,
            False,
            (1, 4),
        ),
    ]
)
def standardize_gradient(
    xp: Any,
    gy: Array,
    gmean: Array,
    gvariance: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    variance: Array,
    axis: int | Sequence[int] = (-1,),
    eps: float = 1e-5,
    centered: bool = True,
    affine_shape: Sequence[int] | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of `standardize` by x, weight and bias, from those of its three outputs and its statistics.

    gy, x: one shape; the other arrays as `standardize` takes and returns them -> (gx, gweight, gbias): gx as x, the
    others of affine_shape (of shape (0,) for None: there is neither weight nor bias). Raises what `standardize` raises.
    """
    axes = normalize_axes("standardize_gradient", x.ndim, axis)
    across = 0 in axes  # the sums of a block are parts of the whole, so every block comes before any result
    reduced = () if affine_shape is None else tuple([i for i, n in enumerate(affine_shape) if n == 1])
    shared = axes if affine_shape is None else tuple([i for i in axes if i in reduced])
    count = prod(x.shape[i] for i in axes) or 1
    rstd = 1 / xp.sqrt(variance + eps)
    sums = xp.zeros(mean.shape, x.dtype), xp.zeros(mean.shape, x.dtype)
    gweight, gbias = [xp.zeros(affine_shape or (0,), x.dtype) for _ in range(2)]
    gx = xp.empty_like(x)

    def deviation(block: slice) -> Any:
        return x[block] - _part(mean, block) if centered else x[block].copy()

    def finish(block: slice) -> None:
        first, second, inverse = [_part(a, block) for a in (*sums, rstd)]
        slope = 2 / count * _part(gvariance, block) - inverse**2 * second / count
        part = xp.multiply(deviation(block), slope, out=gx[block])
        if centered:
            part += _part(gmean, block) / count - inverse * first / count
        scale = _part(weight, block)
        part += gy[block] * (inverse if scale is None else inverse * scale)

    for block in _blocks(x):
        given, normal = gy[block], deviation(block)
        normal *= _part(rstd, block)
        normal *= given
        direct = given
        if shared:
            direct, normal = [a.sum(axis=shared, keepdims=True) for a in (given, normal)]
        if affine_shape is not None:
            _part(gbias, block)[...] += direct.sum(axis=reduced, keepdims=True)
            _part(gweight, block)[...] += normal.sum(axis=reduced, keepdims=True)
        scale = _part(weight, block)
        for total, partial in zip(sums, (direct, normal), strict=True):
            weighted = partial if scale is None else partial * scale
            _part(total, block)[...] += weighted.sum(axis=axes, keepdims=True)
        if not across:
            finish(block)
    if across:
        for block in _blocks(x):
            finish(block)
    return gx, gweight, gbias


@standardize_gradient.type
def _(
    gy: TensorType,
    gmean: TensorType,
    gvariance: TensorType,
    x: TensorType,
    weight: TensorType | None,
    mean: TensorType,
    variance: TensorType,
    axis: int | Sequence[int],
    eps: float,
    centered: bool,
    affine_shape: Sequence[int] | None,
) -> tuple[TensorType, TensorType, TensorType]:
    statistics = _statistics_type(x, normalize_axes("standardize_gradient", x.ndim, axis)).shape
    shapes = [gy.shape, *(s.shape for s in (gmean, gvariance, mean, variance))]
    if shapes != [x.shape, *[statistics] * 4] or (weight is not None and weight.shape != affine_shape):
        raise ShapeError(
            "standardize_gradient: operands do not fit x",
            expected=f"gradient {x.shape}, statistics {statistics}, weight {affine_shape}",
            received=", ".join(map(str, shapes)),
        )
    affine = TensorType(tuple(affine_shape) if affine_shape is not None else (0,), _statistics_type(x, ()).dtype)
    return x, affine, affine


@standardize_gradient.vjp
def _(g: Any, _y: Any, *arguments: Any) -> Any:
    operands, (axis, eps, centered, affine_shape) = arguments[:7], arguments[7:]
    axes = normalize_axes("standardize_gradient", len(arguments[3].shape), axis)

    def formula(
        gy: Any, gmean: Any, gvariance: Any, x: Any, weight: Any, center: Any, variance: Any
    ) -> tuple[Any, ...]:
        count = prod(x.shape[i] for i in axes) or 1
        rstd = divide(1.0, sqrt(add(variance, eps)))
        deviation = subtract(x, center) if centered else x
        normal = multiply(deviation, rstd)
        weighted = gy if weight is None else multiply(gy, weight)
        gx = subtract(weighted, multiply(normal, mean(multiply(weighted, normal), axes, True)))
        if centered:
            gx = subtract(gx, mean(weighted, axes, True))
        gx = add(multiply(gx, rstd), multiply(multiply(gvariance, 2 / count), deviation))
        if centered:
            gx = add(gx, divide(gmean, count))
        if affine_shape is None:
            return (gx,)
        reduced = tuple(i for i, n in enumerate(affine_shape) if n == 1)
        return gx, sum_over(multiply(gy, normal), reduced, True), sum_over(gy, reduced, True)

    _, pullback = vjp(formula, *operands)
    return pullback(g if affine_shape is not None else g[:1])
