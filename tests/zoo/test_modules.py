"""Modules: names, state dicts, and modules as functions, against torch.nn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, DTypeError, StateDictError, TraceError
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Linear, Sequential
from zoonet.zoo.modules import Module, assign, functional_call, initialised_by, value_and_grad

torch = pytest.importorskip("torch")


class Net(Module):
    """Convolution, batch norm, a list of layers and a dict of them."""

    def __init__(self) -> None:
        self.stem = Sequential(Conv2d(3, 4, 3, bias=True), BatchNorm2d(4), ops.relu)
        self.blocks = [Linear(4, 4), Linear(4, 4, bias=False)]
        self.heads = {"a": Linear(4, 2), "b": Linear(4, 3)}
        self.scale = np.ones(4, np.float32)
        self._hidden = np.zeros(99, np.float32)

    def forward(self, x: Any) -> Any:
        y = ops.mean(self.stem(x), (2, 3)) * self.scale
        for block in self.blocks:
            y = ops.relu(block(y))
        return self.heads["a"](y)


class TorchNet(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.scale = nn.Parameter(torch.ones(4))
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4, bias=False)])
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 3)})

    def forward(self, x: Any) -> Any:
        y = self.stem(x).mean((2, 3)) * self.scale
        for block in self.blocks:
            y = torch.relu(block(y))
        return self.heads["a"](y)


@pytest.fixture
def net() -> Net:
    with initialised_by(0):
        return Net()


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(0).standard_normal((5, 3, 6, 6), np.float32)


def twin(net: Net) -> Any:
    """The same network in PyTorch, with the same arrays."""
    result = TorchNet()
    result.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in net.state_dict().items()}, strict=True)
    return result


# -- names -----------------------------------------------------------------------------------------------------------


def test_names_and_their_order_are_those_of_pytorch(net: Net) -> None:
    other = TorchNet()
    assert list(net.state_dict()) == list(other.state_dict())
    assert [name for name, _ in net.named_parameters()] == [name for name, _ in other.named_parameters()]
    assert [name for name, _ in net.named_buffers()] == [name for name, _ in other.named_buffers()]
    shapes = {name: tuple(tensor.shape) for name, tensor in other.state_dict().items()}
    assert {name: array.shape for name, array in net.state_dict().items()} == shapes
    assert dict(net.named_modules()).keys() <= {name for name, _ in other.named_modules()} | {"stem.2"}


def test_private_attributes_are_not_parameters(net: Net) -> None:
    assert not any("hidden" in name for name in net.state_dict())


def test_a_shared_parameter_comes_once_but_stands_in_the_state_dict_twice(x: Any) -> None:
    class Tied(Module):
        def __init__(self) -> None:
            self.first = Linear(3, 3)
            self.second = self.first

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["first.weight", "first.bias"]
    assert set(tied.state_dict()) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    new = np.full((3, 3), 2, np.float32)
    tied.load_state_dict({"first.weight": new, "first.bias": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(tied.second.weight, new)


def test_a_module_that_holds_itself_is_an_error() -> None:
    class Loop(Module):
        pass

    loop = Loop()
    loop.child = Loop()  # type: ignore[attr-defined]
    loop.child.parent = loop  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"'child.parent' holds itself.*starts with '_'"):
        loop.state_dict()


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        Module()(1)


# -- state -----------------------------------------------------------------------------------------------------------


def test_outputs_are_those_of_pytorch(net: Net, x: Any) -> None:
    other = twin(net).eval()
    with torch.no_grad():
        np.testing.assert_allclose(net(x), other(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-6)


def test_training_updates_the_statistics_as_pytorch_does(net: Net, x: Any) -> None:
    other = twin(net).train()
    net.train()
    with torch.no_grad():
        expected = other(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net(x), expected, rtol=1e-4, atol=1e-5)
    for name, array in net.named_buffers():
        np.testing.assert_allclose(array, other.state_dict()[name].numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
    assert not net.eval().training
    assert not any(module.training for _, module in net.named_modules())


def test_loading_copies(net: Net) -> None:
    state = {name: np.array(array) for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    state["scale"][:] = 7
    assert (net.scale == 1).all()


def test_loading_casts_to_the_dtype_of_the_module(net: Net) -> None:
    state = {
        name: np.asarray(array, np.float16 if array.dtype.kind == "f" else None)
        for name, array in net.state_dict().items()
    }
    net.load_state_dict(state)
    assert {array.dtype.name for _, array in net.named_parameters()} == {"float32"}


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(net: Net) -> None:
    state = {name: np.array(array) + 1 for name, array in net.state_dict().items()}
    del state["heads.a.weight"], state["stem.0.bias"]
    state |= {"extra": np.ones(2), "blocks.0.bias": np.ones(9, np.float32)}
    before = {name: np.array(array) for name, array in net.state_dict().items()}
    with pytest.raises(StateDictError) as caught:
        net.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "the weights do not fit Net",
        "  2 missing: stem.0.bias, heads.a.weight",
        "  1 unexpected: extra",
        "  1 of wrong shape: blocks.0.bias (expected [4], received [9])",
    ]
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    net.load_state_dict(state, strict=False)
    np.testing.assert_array_equal(net.scale, before["scale"] + 1)
    np.testing.assert_array_equal(net.blocks[0].bias, before["blocks.0.bias"])


def test_a_prefix_is_taken_off(net: Net) -> None:
    state = {f"module.{name}": array for name, array in net.state_dict().items()} | {"epoch": np.zeros(())}
    net.load_state_dict(state, prefix="module.")
    with pytest.raises(StateDictError, match="missing"):
        net.load_state_dict(state)


def test_the_count_of_batches_may_be_absent(net: Net) -> None:
    """Checkpoints older than PyTorch 0.4.1 lack it."""
    net.load_state_dict({k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")})


def test_many_names_are_cut(net: Net) -> None:
    with pytest.raises(StateDictError, match=r"14 missing: scale, .* … and 9 more"):
        net.load_state_dict({})


def test_dtypes(net: Net, x: Any) -> None:
    net.to(dtype="float64")
    assert {array.dtype.name for _, array in net.named_parameters()} == {"float64"}
    assert net.stem[1].num_batches_tracked.dtype == np.int64
    assert net(x.astype(np.float64)).dtype == np.float64
    with pytest.raises(DTypeError, match="expected a floating dtype; received int32"):
        net.to(dtype="int32")


def test_initial_values_come_from_the_seed() -> None:
    nets = []
    for seed in (1, 1, 2):
        with initialised_by(seed):
            nets.append(Net())
    first, second, third = (net.heads["b"].weight for net in nets)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    with initialised_by(None):
        assert not Net().heads["b"].weight.any()
    again = Net().initialise(5).state_dict()
    for name, array in Net().initialise(5).state_dict().items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)


# -- functions of parameters -----------------------------------------------------------------------------------------


def test_functional_call_leaves_the_module_as_it_was(net: Net, x: Any) -> None:
    before = {name: np.array(array) for name, array in net.state_dict().items()}
    doubled = {name: array * 2 for name, array in net.named_parameters()}
    net.train()
    y, state = functional_call(net, doubled, x)
    assert set(state) == {name for name, _ in net.named_buffers()}
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    other = twin(net).train()
    with torch.no_grad():
        parameters = {name: torch.from_numpy(array) for name, array in doubled.items()}
        expected = torch.func.functional_call(other, parameters, (torch.from_numpy(x),))
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_functional_call_restores_after_an_error(net: Net) -> None:
    before = net.scale
    with pytest.raises(Exception, match="axes"):
        functional_call(net, {"scale": np.zeros(4, np.float32)}, np.zeros(3, np.float32))
    assert net.scale is before


@pytest.mark.parametrize(
    ("values", "message"),
    [({"nothing": np.zeros(1)}, "1 unexpected: nothing"), ({"scale": np.zeros(7)}, r"scale \(expected \[4\]")],
)
def test_functional_call_and_assign_refuse_what_does_not_fit(net: Net, values: dict[str, Any], message: str) -> None:
    with pytest.raises(StateDictError, match=message):
        functional_call(net, values, np.zeros((1, 3, 6, 6), np.float32))
    with pytest.raises(StateDictError, match=message):
        assign(net, values)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_pytorch(net: Net, x: Any, training: bool) -> None:
    net.train(training)
    labels = np.array([0, 1, 1, 0, 1])
    other = twin(net).train(training)
    expected = torch.nn.functional.cross_entropy(other(torch.from_numpy(x)), torch.from_numpy(labels))
    expected.backward()
    value, gradients, state = value_and_grad(net, lambda x, labels: ops.cross_entropy(net(x), labels))(x, labels)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    for name, parameter in other.named_parameters():
        wanted = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
        np.testing.assert_allclose(gradients[name], wanted, rtol=1e-3, atol=1e-5, err_msg=name)
    assert bool(state) == training
    assign(net, state)
    np.testing.assert_allclose(net.stem[1].running_var, other.stem[1].running_var.numpy(), rtol=1e-4)


def test_only_what_is_trainable_has_a_gradient(net: Net, x: Any) -> None:
    step = value_and_grad(net, lambda x: ops.mean(net(x)), trainable=lambda name: name.startswith("heads.a"))
    assert set(step(x)[1]) == {"heads.a.weight", "heads.a.bias"}


def test_a_whole_training_step_is_one_graph(net: Net, x: Any) -> None:
    """Gradient, update and new statistics, traced with the parameters as inputs, give what eager execution gives."""
    net.train()
    names = list(net.state_dict())

    def step(x: Any, *arrays: Any) -> tuple[Any, ...]:
        values = dict(zip(names, arrays, strict=True))
        trained = {name: values[name] for name in dict(net.named_parameters())}

        def loss(trained: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            y, state = functional_call(net, values | trained, x)
            return ops.mean(ops.square(y)), state

        (_, state), gradients = ops.value_and_grad(loss, has_aux=True)(trained)
        new = values | {name: array - 0.1 * gradients[name] for name, array in trained.items()} | state
        return tuple(new[name] for name in names)

    arrays = [net.state_dict()[name] for name in names]
    graph = ops.trace(step, *(ops.tensor_type(a.shape, a.dtype) for a in (x, *arrays)))
    compiled = ops.compile(graph)(x, *arrays)
    for name, found, expected in zip(names, compiled, step(x, *arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=name)
    assert zoo.Module is Module


def test_gradients_of_a_network_in_training_leave_it_whole() -> None:
    """Its statistics move as in torch; an abstract trace, which has no statistics, is refused and changes nothing."""
    network = BatchNorm2d(3)
    network.train()
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    theirs = torch.nn.BatchNorm2d(3)
    theirs(torch.from_numpy(x))
    ops.grad(lambda x: ops.sum(network(x) * x))(x)
    np.testing.assert_allclose(network.running_mean, theirs.running_mean.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(network.running_var, theirs.running_var.numpy(), rtol=1e-5)
    before = network.running_mean
    with pytest.raises(TraceError, match="functional_call"):
        ops.trace(network, x)
    assert network.running_mean is before
    network.eval()
    assert network(x).shape == x.shape
