"""Declaration and lookup of ONNX operators: each version is an inline composite named `onnx.Reshape-14`."""

from __future__ import annotations

import difflib
import functools
import inspect
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoonet.ops.devices import constants_follow
from zoonet.ops.errors import ArgumentError, DTypeError, OperatorError, UnsupportedFormatError, ZoonetError
from zoonet.ops.registry import Op, composite
from zoonet.ops.types import is_floating

__all__ = ["DOMAINS", "Operator", "Subgraph", "declare", "find_operator", "onnx_operator", "operators"]

#: Domains that have operators, with the newest opset known of each.
DOMAINS = {
    "": 28,
    "ai.onnx.ml": 5,
    "ai.onnx.preview": 1,
    "ai.onnx.preview.training": 1,
    "com.microsoft": 1,
}

#: A sub-graph as an operator gets it: the graph, and what it uses of the graph around it (its last inputs).
Subgraph = tuple[Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Operator:
    """One version of an ONNX operator.

    inputs: names of the parameters that are inputs; optional: of those that may be absent (with a default, or of a type
    that allows None). variadic: the last of them takes all that remain.
    attributes: names of the parameters that are attributes. many: it takes the number of wanted outputs, and returns
    a tuple of as many.
    """

    op: Op[..., Any]
    domain: str
    name: str
    since: int
    inputs: tuple[str, ...]
    optional: frozenset[str]
    variadic: bool
    attributes: frozenset[str]
    required: frozenset[str]
    many: bool


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}


def onnx_operator(
    *names: str, since: int = 1, domain: str = "", variadic: bool = False
) -> Callable[[Callable[..., Any]], Op[..., Any]]:
    """Declare the version of an ONNX operator that begins with opset `since`.

    The function's positional-only parameters are the operator's inputs in order, those after the `/` its attributes,
    under their ONNX names and with the defaults of the specification. variadic: the last input takes a tuple of all
    inputs that remain. A parameter `outputs` gets the number of outputs that the node asks for; the function then
    returns a tuple of at least as many. Several names declare the same function under each.
    """

    def register(function: Callable[..., Any]) -> Op[..., Any]:
        parameters = list(inspect.signature(function).parameters.values())
        inputs = tuple(p.name for p in parameters if p.kind == inspect.Parameter.POSITIONAL_ONLY)
        rest = [p for p in parameters if p.name not in inputs and p.name != "outputs"]
        optional = frozenset(
            p.name for p in parameters if p.default is not inspect.Parameter.empty or "None" in str(p.annotation)
        )
        many = any(p.name == "outputs" for p in parameters)
        plain = _cut_outputs(function) if many else function
        for name in names:
            body = _checked(plain, _Signature(domain, name, since, len(inputs), variadic))
            prefix = f"onnx.{domain}." if domain else "onnx."
            op: Op[..., Any] = composite(inline=True, exact=True, name=f"{prefix}{name}-{since}")(body)
            entry = Operator(
                op,
                domain,
                name,
                since,
                inputs,
                optional.intersection(inputs),
                variadic,
                frozenset(p.name for p in rest),
                frozenset(p.name for p in rest if p.default is inspect.Parameter.empty),
                many,
            )
            versions = _OPERATORS.setdefault((domain, name), [])
            versions.append(entry)
            versions.sort(key=lambda version: version.since)
        return op

    return register


def declare(name: str, function: Callable[..., Any], since: Sequence[int]) -> None:
    """Declare the same function for several versions, which differ in the types that they take."""
    for version in since:
        onnx_operator(name, since=version)(function)


@functools.cache
def schema_of(domain: str, name: str, since: int) -> Any:
    """The onnx package's OpSchema of a version of an operator; None for one that it does not know."""
    import onnx

    try:
        return onnx.defs.get_schema(name, since, domain)
    except onnx.defs.SchemaError:
        return None


@dataclass(frozen=True)
class _Signature:
    """A version of an operator, and how many inputs it has."""

    domain: str
    name: str
    since: int
    count: int
    variadic: bool

    @functools.cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Positions of inputs that the specification wants of one data type."""
        import onnx

        schema = schema_of(self.domain, self.name, self.since)
        if schema is None or len(schema.inputs) != self.count:
            return ()
        places: dict[str, list[int]] = {}
        for position, entry in enumerate(schema.inputs):
            several = entry.option == onnx.defs.OpSchema.FormalParameterOption.Variadic
            if several and not (entry.is_homogeneous and self.variadic and position == self.count - 1):
                continue
            places.setdefault(entry.type_str, []).append(position)
        last = self.count - 1 if self.variadic else -1
        return tuple(tuple(group) for group in places.values() if len(group) > 1 or group == [last])

    def check(self, args: tuple[Any, ...]) -> None:
        """Raise DTypeError where operands differ in data type that may not.

        Floats of different precision are promoted, as a network whose parameters were cast to another needs.
        """
        for group in self.groups:
            found: dict[Any, None] = {}
            for position in group:
                value = args[position]
                for operand in value if isinstance(value, tuple) else (value,):
                    if hasattr(operand, "dtype"):
                        found[operand.dtype] = None
            if len(found) > 1 and not all(is_floating(dtype) for dtype in found):
                raise DTypeError(
                    f"{self.name} takes operands of one data type",
                    received=" and ".join("string" if d.kind == "O" else d.name for d in found),
                    fix="put a Cast before it",
                )


def _checked(function: Callable[..., Any], signature: _Signature) -> Callable[..., Any]:
    """The function, whose operands are checked; what it raises where no check foresaw it becomes an ArgumentError."""

    @functools.wraps(function)
    def body(*args: Any) -> Any:
        signature.check(args)
        try:
            with constants_follow():
                return function(*args)
        except ZoonetError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ArgumentError(
                f"operands or attributes do not fit the operator ({error or type(error).__name__})",
                expected="what its specification says",
                received=", ".join(f"{a.dtype}{list(a.shape)}" if hasattr(a, "dtype") else repr(a)[:60] for a in args),
            ) from error

    return body


def _cut_outputs(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def body(*args: Any) -> Any:
        outputs = args[-1]
        result = function(*args)
        if len(result) < outputs:
            raise ArgumentError(
                f"{function.__name__} has fewer outputs than the node names",
                expected=f"at most {len(result)}",
                received=outputs,
            )
        return tuple(result[:outputs])

    if list(inspect.signature(function).parameters)[-1] != "outputs":
        raise OperatorError(f"{function.__name__} does not declare `outputs` last")
    return body


def operators() -> list[Operator]:
    """Every declared version of every operator."""
    return [version for versions in _OPERATORS.values() for version in versions]


def find_operator(domain: str, name: str, opset: int, node: str = "") -> Operator:
    """The newest version of an operator that is not above the opset.

    node: what the node is called, for messages. Raises UnsupportedFormatError that names the node, the operator and
    the opset, and says what is supported nearby.
    """
    domain = "" if domain == "ai.onnx" else domain
    where = f"node {node!r} uses the operator " if node else "the operator "
    shown = f"{domain}.{name}" if domain else name
    if domain not in DOMAINS:
        raise UnsupportedFormatError(
            f"{where}{shown} (opset {opset}), of a domain that is not supported",
            expected="one of " + ", ".join(d or "ai.onnx" for d in DOMAINS),
            received=repr(domain),
            fix="it was optimised by ONNX Runtime for one machine: take the model from before, or save it at the level "
            "ORT_ENABLE_EXTENDED"
            if domain == "com.microsoft.nchwc"
            else "export the model without custom operators, or with them as model-local functions",
        )
    if opset > DOMAINS[domain]:
        raise UnsupportedFormatError(
            f"{where}{shown} of opset {opset}",
            expected=f"an opset of {domain or 'ai.onnx'} up to {DOMAINS[domain]}",
            received=opset,
            fix=f"export the model with opset {DOMAINS[domain]}",
        )
    versions = _OPERATORS.get((domain, name))
    if versions is None:
        known = {key for key_domain, key in _OPERATORS if key_domain == domain}
        near = difflib.get_close_matches(name, known, 3, 0.6)
        elsewhere = [d or "ai.onnx" for d, key in _OPERATORS if key == name]
        raise UnsupportedFormatError(
            f"{where}{shown} (opset {opset}), which is not supported",
            expected="an operator such as " + ", ".join(near or sorted(known)[:3]),
            received=shown,
            fix=f"the domain {elsewhere[0]} has an operator of this name" if elsewhere else None,
        )
    position = bisect_right([version.since for version in versions], opset)
    if not position:
        raise UnsupportedFormatError(
            f"{where}{shown}, which opset {opset} does not have",
            expected=f"opset {versions[0].since} or newer",
            received=opset,
            fix=f"export the model with opset {versions[0].since}",
        )
    return versions[position - 1]
