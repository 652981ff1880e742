"""Optimizers, schedules, clipping and running means against PyTorch (timm for LAMB, Lion and TensorFlow's RMSprop)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import ops
from zoonet.ops.errors import ArgumentError, StateDictError
from zoonet.zoo import train as own
from zoonet.zoo.train import schedules
from zoonet.zoo.train.updates import Average, Group, Updates, global_norm, layer_decay, no_decay

SHAPES = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,), "fc.weight": (5, 3), "fc.bias": (5,)}
MATRICES = {"fc.weight": (5, 3), "wide.weight": (3, 7), "square.weight": (4, 4)}


def timm_optimizer(name: str) -> Callable[..., Any]:
    def make(*args: Any, **options: Any) -> Any:
        resnet_parity.torchvision_and_timm()
        return getattr(importlib.import_module("timm.optim"), name)(*args, **options)

    return make


def start(shapes: dict[str, tuple[int, ...]], dtype: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def loss(p: dict[str, Any], x: Any, t: Any, module: Any) -> Any:
    """Smooth, not quadratic, and of all parameters."""
    total = 0.0
    for array, target in zip(p.values(), t, strict=True):
        total = total + module.sum(module.square(module.tanh(array * x) - target))
    return total


def torch_trajectory(make: Callable[[list], Any], parameters: dict, targets: list, xs: np.ndarray) -> dict:
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in parameters.items()}
    optimizer = make(list(tensors.values()))
    for x in xs:
        optimizer.zero_grad()
        loss(tensors, torch.tensor(x), [torch.tensor(t) for t in targets], torch).backward()
        optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def own_trajectory(optimizer: own.Optimizer, parameters: dict, targets: list, xs: np.ndarray) -> Updates:
    updates = Updates(optimizer, parameters)
    for x in xs:
        updates.step(ops.grad(lambda p, x=x: loss(p, x, targets, ops))(updates.parameters))
    return updates


T = torch.optim
CASES: list[tuple[own.Optimizer, Callable[..., Any]]] = [
    (own.SGD(0.03), lambda p: T.SGD(p, 0.03)),
    (
        own.SGD(0.03, momentum=0.9, weight_decay=0.01, dampening=0.2),
        lambda p: T.SGD(p, 0.03, 0.9, 0.2, weight_decay=0.01),
    ),
    (own.SGD(0.03, momentum=0.9, nesterov=True), lambda p: T.SGD(p, 0.03, 0.9, nesterov=True)),
    (own.Adam(0.01), lambda p: T.Adam(p, 0.01)),
    (own.Adam(0.01, weight_decay=0.05, amsgrad=True), lambda p: T.Adam(p, 0.01, weight_decay=0.05, amsgrad=True)),
    (own.AdamW(0.01, weight_decay=0.1), lambda p: T.AdamW(p, 0.01, weight_decay=0.1)),
    (own.NAdam(0.01, weight_decay=0.05), lambda p: T.NAdam(p, 0.01, weight_decay=0.05)),
    (
        own.NAdam(0.01, weight_decay=0.05, decoupled=True),
        lambda p: T.NAdam(p, 0.01, weight_decay=0.05, decoupled_weight_decay=True),
    ),
    (own.RAdam(0.01, weight_decay=0.05), lambda p: T.RAdam(p, 0.01, weight_decay=0.05)),
    (
        own.RAdam(0.01, weight_decay=0.05, decoupled=True),
        lambda p: T.RAdam(p, 0.01, weight_decay=0.05, decoupled_weight_decay=True),
    ),
    (
        own.Adagrad(0.1, weight_decay=0.01, lr_decay=0.01, initial=0.1),
        lambda p: T.Adagrad(p, 0.1, 0.01, 0.01, initial_accumulator_value=0.1),
    ),
    (own.Adadelta(1.0, weight_decay=0.01), lambda p: T.Adadelta(p, 1.0, weight_decay=0.01)),
    (own.RMSprop(0.01, weight_decay=0.01), lambda p: T.RMSprop(p, 0.01, weight_decay=0.01)),
    (own.RMSprop(0.01, momentum=0.9, centered=True), lambda p: T.RMSprop(p, 0.01, momentum=0.9, centered=True)),
    (
        own.RMSprop(0.01, momentum=0.9, alpha=0.9, eps=1e-3, weight_decay=0.01, tensorflow=True),
        lambda p: timm_optimizer("RMSpropTF")(p, 0.01, 0.9, 1e-3, 0.01, 0.9),
    ),
    (own.Lion(0.003, weight_decay=0.1), lambda p: timm_optimizer("Lion")(p, 0.003, weight_decay=0.1)),
    (
        own.LAMB(0.01, weight_decay=0.05),
        lambda p: timm_optimizer("Lamb")(p, 0.01, weight_decay=0.05, max_grad_norm=None),
    ),
    (own.Adafactor(0.02, weight_decay=0.01), lambda p: T.Adafactor(p, 0.02, weight_decay=0.01)),
    (
        own.SGD(0.001, momentum=0.5, weight_decay=0.5, maximize=True),
        lambda p: T.SGD(p, 0.001, 0.5, weight_decay=0.5, maximize=True),
    ),
    (
        own.AdamW(0.001, weight_decay=0.1, amsgrad=True, maximize=True),
        lambda p: T.AdamW(p, 0.001, weight_decay=0.1, amsgrad=True, maximize=True),
    ),
    (own.Adafactor(0.002, maximize=True), lambda p: T.Adafactor(p, 0.002, maximize=True)),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("optimizer", "oracle"), CASES, ids=lambda c: repr(c) if isinstance(c, own.Optimizer) else "")
def test_100_steps_are_torch_s(optimizer: own.Optimizer, oracle: Callable[..., Any], dtype: str) -> None:
    parameters = start(SHAPES, dtype)
    rng = np.random.default_rng(1)
    targets = [rng.uniform(-0.5, 0.5, a.shape).astype(dtype) for a in parameters.values()]
    xs = rng.uniform(0.5, 1.5, 100).astype(dtype)
    theirs = torch_trajectory(oracle, parameters, targets, xs)
    ours = own_trajectory(optimizer, parameters, targets, xs).parameters
    for name in SHAPES:
        assert ours[name].dtype == dtype
        # Lion's sign turns a difference of the last bit at zero into a whole step
        limit = 1e-10 if dtype == "float64" else 1e-5
        np.testing.assert_allclose(ours[name], theirs[name], rtol=limit, atol=limit)


def torch_muon(lr: float, options: dict) -> Callable[[list], Any]:
    adjust = "match_rms_adamw" if "match_adam" in options else None
    return lambda p: T.Muon(p, lr, nesterov=options.get("nesterov", True), adjust_lr_fn=adjust)


MUON_OPTIONS = pytest.mark.parametrize("options", [{}, {"nesterov": False}, {"match_adam": True}])


@MUON_OPTIONS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_muon_in_full_precision(options: dict, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # torch orthogonalises in 16 bits
    parameters = start(MATRICES, dtype)
    rng = np.random.default_rng(1)
    targets = [rng.uniform(-0.5, 0.5, a.shape).astype(dtype) for a in parameters.values()]
    xs = rng.uniform(0.5, 1.5, 100).astype(dtype)
    theirs = torch_trajectory(torch_muon(0.02, options), parameters, targets, xs)
    ours = own_trajectory(own.Muon(0.02, bfloat16=False, **options), parameters, targets, xs).parameters
    limit = 1e-10 if dtype == "float64" else 1e-5
    for name in MATRICES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=limit, atol=limit)


@MUON_OPTIONS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("seed", [0, 1])
def test_muon_is_torch_s_with_its_bfloat16(options: dict, dtype: str, seed: int) -> None:
    """Both take the same gradients: where these differ in the last bit, 16 bits round the other way now and then."""
    parameters, lr = start(MATRICES, dtype), 1e-3
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in parameters.items()}
    theirs, ours = torch_muon(lr, options)([*tensors.values()]), Updates(own.Muon(lr, **options), parameters)
    rng = np.random.default_rng(seed)
    for _ in range(100):
        gradients = {name: 0.1 * a + rng.normal(size=a.shape).astype(dtype) for name, a in ours.parameters.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(gradients[name])
        theirs.step()
        ours.step(gradients)
    limit = 1e-10 if dtype == "float64" else 1e-5
    for name, tensor in tensors.items():
        assert ours.parameters[name].dtype == dtype
        np.testing.assert_allclose(ours.parameters[name], tensor.detach().numpy(), rtol=limit, atol=limit)


def test_muon_rounds_large_matrices_as_torch_but_for_the_order_of_sums() -> None:
    parameters = start({"large.weight": (60, 90)}, "float32")
    gradient = np.random.default_rng(1).normal(size=(60, 90)).astype(np.float32)
    tensor, ours = torch.tensor(parameters["large.weight"], requires_grad=True), Updates(own.Muon(1e-3), parameters)
    tensor.grad = torch.from_numpy(gradient)
    torch_muon(1e-3, {})([tensor]).step()
    ours.step({"large.weight": gradient})
    np.testing.assert_allclose(ours.parameters["large.weight"], tensor.detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES] + [own.Muon(0.02)], ids=repr)
def test_a_step_is_a_function_of_arrays_that_traces(optimizer: own.Optimizer) -> None:
    parameters = start(SHAPES, "float32")
    state = {name: optimizer.start(np, a) for name, a in parameters.items()}
    c = {name: np.float32(v) for name, v in optimizer.coefficients(1, optimizer.lr).items()}

    def step(parameters: dict, gradients: dict, state: dict, c: dict) -> Any:
        return optimizer.apply(parameters, gradients, state, c)

    def types(tree: Any) -> Any:
        return ops.trees.map_leaves(lambda a: ops.tensor_type(a.shape, str(a.dtype)), tree)

    program = ops.compile(ops.trace(step, *map(types, (parameters, parameters, state, c))))
    updates = Updates(optimizer, parameters)
    updates.step(parameters)
    new, _ = program(parameters, parameters, state, c)
    for name, array in updates.parameters.items():
        np.testing.assert_allclose(new[name], array, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES] + [own.Muon(0.02)], ids=repr)
def test_steps_are_made_in_place_over_one_flat_array(optimizer: own.Optimizer) -> None:
    updates = Updates(optimizer, start(SHAPES, "float32"))
    (bucket,) = updates._buckets
    assert bucket.flat.size == bucket.gradient.size == sum(math.prod(shape) for shape in SHAPES.values())
    seen = {name: (view, view.copy()) for name, view in updates.parameters.items()}
    memory = [bucket.flat, bucket.gradient, *[a for n, a in updates.state().items() if n != "steps"]]
    places = [array.__array_interface__["data"] for array in memory]
    for _ in range(3):
        updates.step({name: np.full_like(before, 0.1) for name, (_, before) in seen.items()})
    again = [bucket.flat, bucket.gradient, *[a for n, a in updates.state().items() if n != "steps"]]
    assert [array.__array_interface__["data"] for array in again] == places
    for view, before in seen.values():
        assert np.shares_memory(view, bucket.flat)
        assert np.isfinite(view).all()
        assert not np.array_equal(view, before)


def test_state_is_plain_arrays_and_continues_bit_for_bit() -> None:
    for optimizer, _ in CASES:
        parameters = start(SHAPES, "float32")
        targets = [a * 0.1 for a in parameters.values()]
        xs = np.linspace(0.5, 1.5, 10).astype(np.float32)
        whole = own_trajectory(optimizer, parameters, targets, xs)
        half = own_trajectory(optimizer, parameters, targets, xs[:5])
        saved = {name: np.array(a) for name, a in half.state().items()}
        resumed = Updates(optimizer, half.parameters)
        resumed.load_state(saved)
        for x in xs[5:]:
            resumed.step(ops.grad(lambda p, x=x, t=targets: loss(p, x, t, ops))(resumed.parameters))
        for name, array in whole.parameters.items():
            np.testing.assert_array_equal(resumed.parameters[name], array)
    with pytest.raises(StateDictError, match=r"first/conv\.weight"):
        Updates(own.Adam(), parameters).load_state({"steps": np.array(3)})


def test_groups_have_numbers_of_their_own() -> None:
    parameters = start(SHAPES, "float64")
    gradients = {name: np.ones_like(a) for name, a in parameters.items()}
    updates = Updates(own.SGD(0.1, weight_decay=0.5), parameters, [Group("fc", scale=0.1), no_decay()])
    updates.step(gradients)
    for name, rate, decay in (("conv.weight", 0.1, 0.5), ("conv.bias", 0.1, 0), ("fc.weight", 0.01, 0.5)):
        p = parameters[name]
        np.testing.assert_allclose(updates.parameters[name], p - rate * (1 + decay * p), rtol=1e-12)
    scale = layer_decay(["stem.weight", "layer.0.a", "layer.0.b", "layer.1.a", "fc.weight"], 0.5)
    assert [scale(n) for n in ("fc.bias", "layer.1.z", "layer.0.a", "stem.x")] == [1, 0.5, 0.25, 0.125]


def test_the_norm_is_that_of_clip_grad_norm() -> None:
    gradients = start(SHAPES, "float64")
    tensors = []
    for array in gradients.values():
        tensors.append(torch.zeros(array.shape, dtype=torch.float64, requires_grad=True))
        tensors[-1].grad = torch.tensor(array)
    assert global_norm(gradients) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(tensors, 1.0)), rel=1e-12)
    assert not math.isfinite(global_norm({"a": np.array([1.0, np.nan])}))


def test_running_mean_is_torch_s() -> None:
    module = torch.nn.Linear(3, 2).double()
    theirs = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(module)
    ours = Average({n: p.detach().numpy() for n, p in module.named_parameters()}, 0.9, warm_up=False)
    for _ in range(5):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3))
        theirs.update_parameters(module)
        ours.update({n: p.detach().numpy() for n, p in module.named_parameters()})
    np.testing.assert_allclose(ours.arrays["weight"], theirs.module.weight.detach().numpy(), rtol=1e-12)


L = torch.optim.lr_scheduler
SCHEDULES: list[tuple[Any, Callable[[Any], Any]]] = [
    (schedules.Constant(0.5, 7), lambda o: L.ConstantLR(o, 0.5, 7)),
    (schedules.Step(6, 0.3), lambda o: L.StepLR(o, 6, 0.3)),
    (schedules.MultiStep([5, 9, 30], 0.3), lambda o: L.MultiStepLR(o, [5, 9, 30], 0.3)),
    (schedules.Exponential(0.9), lambda o: L.ExponentialLR(o, 0.9)),
    (schedules.Cosine(39, 0.1), lambda o: L.CosineAnnealingLR(o, 39, 0.01)),
    (schedules.CosineRestarts(7, 1, 0.1), lambda o: L.CosineAnnealingWarmRestarts(o, 7, 1, 0.01)),
    (schedules.CosineRestarts(5, 2, 0.1), lambda o: L.CosineAnnealingWarmRestarts(o, 5, 2, 0.01)),
    (schedules.Linear(10, 0.2, 0.9), lambda o: L.LinearLR(o, 0.2, 0.9, 10)),
    (schedules.Polynomial(30, 2.0), lambda o: L.PolynomialLR(o, 30, 2.0)),
    (schedules.OneCycle(41), lambda o: L.OneCycleLR(o, 0.1, 41)),
    (
        schedules.OneCycle(41, 0.2, linear=True),
        lambda o: L.OneCycleLR(o, 0.1, 41, pct_start=0.2, anneal_strategy="linear"),
    ),
    (schedules.OneCycle(41, three_phases=True), lambda o: L.OneCycleLR(o, 0.1, 41, three_phase=True)),
    (
        schedules.WarmUp(8, schedules.Exponential(0.8), 0.1),
        lambda o: L.SequentialLR(o, [L.LinearLR(o, 0.1, 1.0, 8), L.ExponentialLR(o, 0.8)], [8]),
    ),
    (
        schedules.Chain([schedules.Step(3), schedules.Cosine(20)], [11]),
        lambda o: L.SequentialLR(o, [L.StepLR(o, 3), L.CosineAnnealingLR(o, 20)], [11]),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "oracle"),
    SCHEDULES,
    ids=lambda s: repr(s) if hasattr(s, "__dataclass_fields__") else "",
)
@pytest.mark.filterwarnings("ignore")
def test_schedules_are_torch_s(schedule: schedules.Schedule, oracle: Callable[[Any], Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
    theirs = oracle(optimizer)
    for step in range(40):
        assert 0.1 * schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    "options",
    [{}, {"larger": True}, {"cooldown": 3, "minimum": 0.05}, {"threshold": 0.3, "absolute": True}],
)
def test_reduce_on_plateau_is_torch_s(options: dict) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.1)
    theirs = L.ReduceLROnPlateau(
        optimizer,
        "max" if options.get("larger") else "min",
        0.5,
        2,
        cooldown=options.get("cooldown", 0),
        min_lr=0.1 * options.get("minimum", 0),
        threshold=options.get("threshold", 1e-4),
        threshold_mode="abs" if "absolute" in options else "rel",
    )
    ours = schedules.ReduceOnPlateau(0.5, 2, **options)
    numbers = np.random.default_rng(0).uniform(0.2, 1, 40) * np.linspace(1.5, 1, 40)
    numbers[[0, 9]] = math.nan
    for number in numbers:
        theirs.step(number)
        ours.measured(number)
        assert 0.1 * ours(0) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_wrong_numbers_are_refused() -> None:
    for make in (
        lambda: own.SGD(-1.0),
        lambda: own.SGD(momentum=1.0),
        lambda: own.SGD(nesterov=True),
        lambda: own.SGD(maximize="yes"),  # type: ignore[arg-type]
        lambda: own.Adam(betas=(0.9, 1.0)),
        lambda: own.Adam(lr=math.nan),
        lambda: own.make_optimizer("adamm"),
        lambda: own.make_optimizer("adam", momentum=0.9),
        lambda: schedules.Cosine(0),
        lambda: Updates(own.SGD(), {}),
        lambda: Average({}, 1.0),
    ):
        with pytest.raises(ArgumentError):
            make()


@pytest.mark.parametrize(
    ("optimizer", "oracle", "other"),
    [
        (own.NAdam(0.01, weight_decay=0.1), lambda g: T.NAdam(g, 0.01, weight_decay=0.1), "momentum_decay"),
        (own.AdamW(0.01, weight_decay=0.1), lambda g: T.AdamW(g, 0.01, weight_decay=0.1), "eps"),
    ],
    ids=["NAdam", "AdamW"],
)
def test_groups_of_parameters_are_torch_s(optimizer: Any, oracle: Callable[..., Any], other: str) -> None:
    parameters = start(SHAPES, "float64")
    tensors = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in parameters.items()}
    first, *biases = tensors["conv.weight"], tensors["conv.bias"], tensors["fc.bias"]
    options = {"betas": (0.5, 0.6), "weight_decay": 0.4, other: 0.01}
    groups: list[dict[str, Any]] = [{"params": [tensors["fc.weight"]]}, {"params": biases, "weight_decay": 0.0}]
    theirs = oracle([{"params": [first], "lr": 0.003, **options}, *groups])
    ours = Updates(optimizer, parameters, [Group("conv.weight", scale=0.3, options=options), no_decay()])
    rng = np.random.default_rng(1)
    for _ in range(100):
        gradients = {name: rng.normal(size=a.shape) for name, a in parameters.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        theirs.step()
        ours.step(gradients)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(ours.parameters[name], tensor.detach().numpy(), rtol=1e-11, atol=1e-12)


def test_numbers_of_optimizers() -> None:
    assert own.AdamW(np.float32(0.5), betas=[0.8, np.float64(0.9)]) == own.AdamW(0.5, betas=(0.8, 0.9))
    for wrong in ({"lr": "0.1"}, {"lr": None}, {"betas": 0.9}, {"betas": (0.9,)}):
        with pytest.raises(ArgumentError, match=f"this {next(iter(wrong))}"):
            own.AdamW(**wrong)
    with pytest.raises(ArgumentError, match="betaz"):
        Updates(own.AdamW(), start(SHAPES, "float32"), [Group(options={"betaz": 1})])
