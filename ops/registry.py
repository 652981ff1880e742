"""Operators: one declaration each, and the call that every use of one goes through.

`@op` declares an operator whose body computes on arrays of one module: `body(xp, ...)` with xp numpy or cupy.
`@composite` declares one whose body calls other operators; graphs keep it as one node until it is expanded.
A parameter annotated `Array` (or with neither annotation nor default) is an array operand, one annotated
`Sequence[Array]` a sequence of them, every other one is plain data, fixed when a graph is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from zoonet.ops.devices import array_module, is_array, module_for
from zoonet.ops.errors import ArgumentError, OperatorError, ShapeError, ZoonetError
from zoonet.ops.memory import check_fits
from zoonet.ops.operands import (
    Traced,
    Types,
    as_array,
    as_operand,
    broadcast_shapes,
    conform,
    innermost,
    static_value,
    type_of,
)
from zoonet.ops.samples import Sample
from zoonet.ops.types import COMPLEX, DType, TensorType, is_low_precision, kind_of, promote
from zoonet.ops.types import float32 as float32_dtype

__all__ = ["REGISTRY", "Op", "composite", "op"]

P = ParamSpec("P")
R = TypeVar("R")

#: Every operator by name, in the order of declaration.
REGISTRY: dict[str, Op[..., Any]] = {}

_NUMBERS = (int, float, complex)
#: Signatures that an operator remembers.
_PLANS = 512
ARRAY, ARRAYS, STATIC, ANYTHING = "array", "arrays", "static", "anything"


@dataclass(frozen=True)
class Kernel:
    """A faster body for one device. `when` gets the arguments with types for arrays.

    takes_out: the function has a parameter `out`, an array that it writes the result to and returns. in_place: out
    may be one of the operands.
    """

    function: Callable[..., Any]
    device: str
    when: Callable[..., bool] | None
    takes_out: bool
    in_place: bool


#: What Python raises where an argument is of the wrong kind.
_MISFITS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class _Plan:
    """How to evaluate calls of one signature: function (None: expand), types of the outputs, whether to prepare."""

    function: Callable[..., Any] | None
    types: Types
    prepares: bool


class Op(Generic[P, R]):
    """A declared operator. Calling it runs it at once on arrays, and records it on traced values.

    name, doc, samples: as declared. `type`, `vjp` and `kernel` are decorators that complete the declaration.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        is_composite: bool,
        samples: Sequence[Sample],
        promotes: str | None,
        exact: bool,
        view: bool,
        differentiable: bool,
        inline: bool,
        name: str | None,
    ) -> None:
        self.name = name or body.__name__
        if promotes not in (None, "number", "floating"):
            raise OperatorError(
                f"operator {self.name} is declared wrongly",
                expected='promotes="number" or "floating"',
                received=promotes,
            )
        self.body = body
        self.is_composite = is_composite
        self.samples = tuple(samples)
        self._accepted = (Traced, TensorType, *_NUMBERS) if promotes else (Traced, TensorType)
        self.promotes = promotes
        self.exact = exact
        self.view = view
        self.differentiable = differentiable
        self.inline = inline
        self.kernels: list[Kernel] = []
        self._plans: dict[Any, _Plan] = {}
        self.type_rule: Callable[..., Types] | None = None
        self.vjp_rule: Callable[..., Any] | None = None
        self.vjp_types_only: frozenset[int] = frozenset()
        self.vjp_outputs: tuple[int, ...] | None = None  # the outputs that the gradient rule reads; None: all
        self.__doc__ = body.__doc__
        self.__name__ = self.name
        self.__module__ = body.__module__
        self.__wrapped__ = body
        parameters = list(inspect.signature(body).parameters.values())
        if not is_composite:
            if not parameters or parameters[0].name != "xp":
                raise OperatorError(
                    f"operator {self.name} is declared wrongly",
                    expected="a first parameter named xp, the array module",
                    fix="add it, or use @composite for a body that calls operators only",
                )
            parameters = parameters[1:]
        self.__signature__ = inspect.Signature(parameters)
        self.variadic = parameters[-1].name if parameters and parameters[-1].kind == 2 else None
        self.parameters = tuple(p.name for p in parameters)
        self.roles = {p.name: _role(p, inline) for p in parameters}
        self.promoted = [p.name for p in parameters if self.roles[p.name] == ARRAY and "Mask" not in str(p.annotation)]
        self.optional = {p.name for p in parameters if inline or p.default is None or "None" in str(p.annotation)}
        self.defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}

    def __repr__(self) -> str:
        return f"<operator {self.name}{self.__signature__}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on arrays, or record on traced values."""
        arguments = self.bind(args, kwargs)
        try:
            if self.inline:
                return self.apply(self.body, arguments)  # type: ignore[no-any-return]
            traced = innermost(self.operands(arguments))
            return self.evaluate(arguments) if traced is None else traced.record(self, arguments)  # type: ignore[no-any-return]
        except ZoonetError:
            raise
        except _MISFITS as error:  # rules check what is likely to be wrong, not that a number is a number
            raise ArgumentError(
                f"{self.name} does not take these arguments",
                expected=f"{self.name}{self.__signature__}",
                received=self._shown(arguments),
                fix=f"{type(error).__name__}: {error}",
            ) from error

    def _shown(self, arguments: dict[str, Any]) -> str:
        shown = {k: type_of(v) if hasattr(v, "dtype") and hasattr(v, "shape") else v for k, v in arguments.items()}
        return ", ".join(f"{key}={value}" for key, value in shown.items())[:500]

    # -- declaration ---------------------------------------------------------------------------------------------

    def type(self, rule: Callable[..., Types]) -> Callable[..., Types]:
        """Decorator: the type rule. It gets the call's arguments with TensorType for arrays, and returns types."""
        self.type_rule = rule
        self._plans.clear()
        return rule

    def vjp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: the gradient, `rule(gy, y, *arguments)`, written in operators.

        It returns one gradient per array parameter (a tuple where there are several; None for one that has none; a
        function of no arguments for one that is costly, called only if needed). A parameter whose name starts with
        "_" gets the type only, so that the array need not be kept. Outputs and their gradients are tuples where
        the operator returns several.
        """
        self.vjp_rule = rule
        names = list(inspect.signature(rule).parameters)
        self.vjp_types_only = frozenset(i for i, name in enumerate(names) if name.startswith("_"))
        return rule

    def kernel(
        self,
        device: str,
        *,
        when: Callable[..., bool] | None = None,
        takes_out: bool = False,
        in_place: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: a faster body for a device ("cpu" or "cuda"), used where `when(*arguments)` holds.

        The function is called as the body is. Kernels declared later are tried first. takes_out: it also has a
        keyword `out`, None or an array to write the result to and return; in_place: out may be an operand.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._plans.clear()
            self.kernels.insert(0, Kernel(function, device, when, takes_out, in_place))
            return function

        return register

    # -- calls ---------------------------------------------------------------------------------------------------

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name with defaults, arrays made of lists, plain data made hashable."""
        if self.variadic and len(args) >= len(self.parameters):
            fixed = len(self.parameters) - 1
            args = (*args[:fixed], tuple(args[fixed:]))
        if len(args) > len(self.parameters):
            raise ArgumentError(
                f"{self.name} got too many arguments",
                expected=f"{self.name}{self.__signature__}",
                received=f"{len(args)} positional arguments",
            )
        given = dict(zip(self.parameters, args, strict=False))
        for key, value in kwargs.items():
            if key not in self.roles or key in given:
                reason = "got twice" if key in given else "does not have"
                raise ArgumentError(
                    f"{self.name} {reason} the argument {key!r}",
                    expected=f"{self.name}{self.__signature__}",
                )
            given[key] = value
        arguments = {}
        for name, role in self.roles.items():
            if name in given:
                value = given[name]
                if role == ARRAY:
                    is_absent = value is None and name in self.optional
                    if not is_absent and not is_array(value) and not isinstance(value, self._accepted):
                        value = as_array(value, self.name, name)
                elif role == ARRAYS:
                    value = self._bind_sequence(value, name)
                elif role == STATIC:
                    value = static_value(value, self.name, name)
                arguments[name] = value
            elif name in self.defaults:
                arguments[name] = self.defaults[name]
            elif name == self.variadic:
                arguments[name] = ()
            else:
                raise ArgumentError(
                    f"{self.name} needs the argument {name!r}", expected=f"{self.name}{self.__signature__}"
                )
        return arguments

    def _bind_sequence(self, value: Any, name: str) -> tuple[Any, ...]:
        if is_array(value) or not isinstance(value, list | tuple):
            raise ArgumentError(
                f"{self.name}: {name} is not a sequence of arrays",
                expected="a list or tuple of arrays",
                received=type(value).__name__,
            )
        return tuple(
            [v if is_array(v) or isinstance(v, self._accepted) else as_array(v, self.name, name) for v in value]
        )

    def operands(self, arguments: dict[str, Any]) -> Iterator[Any]:
        """The array operands among bound arguments, in order, without None."""
        for name, role in self.roles.items():
            if role == ARRAY:
                if arguments[name] is not None:
                    yield arguments[name]
            elif role == ARRAYS:
                yield from arguments[name]

    def map_operands(self, arguments: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
        """The bound arguments with function applied to each array operand (Python numbers and None are kept)."""
        mapped = dict(arguments)
        for name, role in self.roles.items():
            value = mapped[name]
            if role == ARRAY:
                if value is not None and not isinstance(value, _NUMBERS):
                    mapped[name] = function(value)
            elif role == ARRAYS:
                mapped[name] = tuple([v if isinstance(v, _NUMBERS) else function(v) for v in value])
        return mapped

    def apply(self, function: Callable[..., Any], arguments: dict[str, Any], *leading: Any) -> Any:
        """function(*leading, *arguments) in the order of the parameters; a variadic one is spread."""
        values = list(arguments.values())
        if self.variadic:
            values[-1:] = values[-1]
        return function(*leading, *values)

    def infer(self, arguments: dict[str, Any]) -> Types:
        """The types of the outputs, for bound arguments with TensorType in the place of arrays.

        Raises ShapeError, DTypeError or ArgumentError where the operator does not take them.
        """
        if self.type_rule is not None:
            return self.apply(self.type_rule, arguments)  # type: ignore[no-any-return]
        if self.is_composite:
            from zoonet.ops.tracing import infer_composite

            return infer_composite(self, arguments)
        if self.promotes:
            return elementwise_type(self, arguments)
        raise OperatorError(f"operator {self.name} has no type rule", fix=f"declare one with @{self.name}.type")

    def evaluate(self, arguments: dict[str, Any]) -> Any:
        """Run on arrays: check types, choose a kernel or the body, and give outputs the dtypes of the type rule."""
        operands = list(self.operands(arguments))
        xp = array_module(*operands) if operands else module_for(arguments.get("device", "cpu"))
        if xp is not np:  # numbers as NumPy has them, which CuPy refuses
            arguments = self.map_operands(
                arguments, lambda a: xp.asarray(a) if isinstance(a, np.ndarray | np.generic) else a
            )
        key = self._key(xp, arguments)
        plan = self._plans.get(key) if key is not None else None
        if plan is None:
            plan = self._plan(xp, arguments)
            if key is not None:
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                self._plans[key] = plan
        if plan.function is None:
            return self.expand(arguments)
        try:
            with np.errstate(all="ignore"):  # inf and nan are results, here and in compiled programs
                prepared = self.prepare(xp, arguments) if plan.prepares else arguments
                return conform(xp, self.apply(plan.function, prepared, xp), plan.types)
        except ZoonetError:
            raise
        except (ValueError, TypeError, IndexError, np.exceptions.AxisError) as error:
            shown = ", ".join(f"{k}={v}" for k, v in self.map_operands(arguments, type_of).items())
            raise ShapeError(f"{self.name} failed on {shown}: {error}") from error

    def _key(self, xp: Any, arguments: dict[str, Any]) -> Any:
        """What a plan depends on, or None if it is not hashable: types of operands, values of everything else."""
        key: list[Any] = [xp is np]
        for name, value in arguments.items():
            if self.roles[name] == ARRAYS:
                key += [(v.shape, v.dtype) for v in value]
            elif self.roles[name] == ARRAY and hasattr(value, "dtype"):  # scalar types as plain data have one as well
                key += (value.shape, value.dtype)
            else:
                key += (type(value), value)
        result = tuple(key)
        try:
            hash(result)
        except TypeError:
            return None
        return result

    def _plan(self, xp: Any, arguments: dict[str, Any]) -> _Plan:
        kernel = None
        typed = self.map_operands(arguments, type_of)
        if self.kernels:
            kernel = self.find_kernel("cpu" if xp is np else "cuda", typed)
        if self.is_composite and kernel is None:
            return _Plan(None, (), False)
        types = self.infer(typed)
        if xp is np and not self.view:
            check_fits(types, self.name)
        dtypes = [getattr(a, "dtype", None) for a in self.operands(arguments)]
        if self.promotes:
            common = self.common_dtype(arguments)
            prepares = is_low_precision(common) or any(
                not _has_dtype(arguments[name], common) for name in self.promoted
            )
        else:
            prepares = any(d is not None and is_low_precision(d) for d in dtypes)
        return _Plan(kernel.function if kernel is not None else self.body, types, prepares)

    def prepare(self, xp: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments as the body takes them: promoted to one dtype where the operator promotes, 16-bit as float32."""
        if self.promotes:
            common = self.common_dtype(arguments)
            if not self.exact and is_low_precision(common):
                common = float32_dtype
            return {
                name: as_operand(xp, value, common, self.name)
                if name in self.promoted and value is not None and not _has_dtype(value, common)
                else value
                for name, value in arguments.items()
            }
        if self.exact:
            return arguments
        return self.map_operands(arguments, lambda a: a.astype(float32_dtype) if is_low_precision(a.dtype) else a)

    def common_dtype(self, arguments: dict[str, Any]) -> DType:
        """The dtype that an operator declared with promotes brings its operands to."""
        return promote([arguments[name] for name in self.promoted], floating=self.promotes == "floating")

    def find_kernel(self, device: str, typed: dict[str, Any]) -> Kernel | None:
        """The kernel for a device and typed arguments, or None: the body."""
        for kernel in self.kernels:
            if kernel.device == device and (kernel.when is None or self.apply(kernel.when, typed)):
                return kernel
        return None

    def expand(self, arguments: dict[str, Any]) -> Any:
        """Run a composite's body, which calls other operators; 16-bit operands in float32, rounded once."""
        if self.exact:
            return self.apply(self.body, arguments)
        operands = [a for a in self.operands(arguments) if not isinstance(a, _NUMBERS)]
        if not any(is_low_precision(a.dtype) for a in operands):
            return self.apply(self.body, arguments)
        types = self.infer(self.map_operands(arguments, type_of))
        cast = REGISTRY["cast"]
        raised = self.map_operands(arguments, lambda a: cast(a, float32_dtype) if is_low_precision(a.dtype) else a)
        result = self.apply(self.body, raised)
        if isinstance(types, TensorType):
            return cast(result, types.dtype)
        return tuple(cast(r, t.dtype) for r, t in zip(result, types, strict=True))


def _has_dtype(value: Any, dtype: DType) -> bool:
    """Is value an array of this dtype? (NumPy takes None for float64 in comparisons of dtypes.)"""
    return hasattr(value, "dtype") and value.dtype == dtype


def _role(parameter: inspect.Parameter, inline: bool) -> str:
    if parameter.kind == inspect.Parameter.KEYWORD_ONLY or parameter.kind == inspect.Parameter.VAR_KEYWORD:
        raise OperatorError(
            f"parameter {parameter.name} of an operator is keyword-only",
            fix="operators take ordinary parameters, which may be passed by keyword",
        )
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return ARRAY if parameter.default is inspect.Parameter.empty else STATIC
    text = annotation if isinstance(annotation, str) else str(annotation)
    if text in ("Any", "typing.Any") and inline:
        return ANYTHING
    if "Array" not in text and "Mask" not in text:
        return STATIC
    variadic = parameter.kind == inspect.Parameter.VAR_POSITIONAL
    return ARRAYS if variadic or "Sequence" in text or "list" in text or "tuple" in text else ARRAY


def elementwise_type(op: Op[..., Any], arguments: dict[str, Any]) -> TensorType:
    """The type rule of operators declared with promotes: broadcast shape, promoted dtype."""
    operands = list(op.operands(arguments))
    dtype = op.common_dtype(arguments)
    if op.promotes == "floating" and kind_of(dtype) > COMPLEX:
        raise OperatorError(f"{op.name} takes numbers", received=dtype.name)
    if len(operands) == 1 and isinstance(operands[0], TensorType):
        return TensorType(operands[0].shape, dtype)
    shapes = [o.shape for o in operands if isinstance(o, TensorType)]
    return TensorType(broadcast_shapes(op.name, *shapes), dtype)


def _declare(body: Callable[..., Any], **options: Any) -> Any:
    declared: Op[..., Any] = Op(body, **options)
    if declared.name in REGISTRY:
        raise OperatorError(f"an operator named {declared.name} exists already", fix="choose another name")
    REGISTRY[declared.name] = declared
    return declared


def op(
    *,
    samples: Sequence[Sample] = (),
    promotes: str | None = None,
    exact: bool = False,
    view: bool = False,
    differentiable: bool = True,
    name: str | None = None,
) -> Callable[[Callable[Concatenate[Any, P], R]], Op[P, R]]:
    """Declare an operator by its body, `body(xp, ...)`.

    samples: calls that the test matrix checks. promotes: "number" or "floating" for elementwise operators, whose
    operands broadcast and are promoted to one dtype ("floating": at least float32) before the body; the type rule
    and the summing of gradients over broadcast axes then come by themselves. exact: 16-bit floats reach the body
    as they are (the default computes in float32 and rounds once). view: the result may share the operand's memory.
    differentiable: False for operators that have no gradient. Raises OperatorError for a wrong declaration.
    """

    def declare(body: Callable[Concatenate[Any, P], R]) -> Op[P, R]:
        declared: Op[P, R] = _declare(
            body,
            is_composite=False,
            samples=samples,
            promotes=promotes,
            exact=exact,
            view=view,
            differentiable=differentiable,
            inline=False,
            name=name,
        )
        return declared

    return declare


def composite(
    *,
    samples: Sequence[Sample] = (),
    exact: bool = False,
    view: bool = False,
    differentiable: bool = True,
    inline: bool = False,
    name: str | None = None,
) -> Callable[[Callable[P, R]], Op[P, R]]:
    """Declare an operator whose body calls other operators; its type rule and gradient follow from the body.

    Options as for `op`. An explicit type rule or gradient may still be given. inline: traces record what the body
    calls and never the operator itself; its body may look at the contents of operands that are not traced, and a
    parameter annotated `Any` takes whatever is given. The operators of operator sets are of this kind.
    """

    def declare(body: Callable[P, R]) -> Op[P, R]:
        declared: Op[P, R] = _declare(
            body,
            is_composite=True,
            samples=samples,
            promotes=None,
            exact=exact,
            view=view,
            differentiable=differentiable,
            inline=inline,
            name=name,
        )
        return declared

    return declare
