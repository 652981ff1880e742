"""Whole Keras models: topology, layers of one's own, and configurations that are refused or broken."""

from __future__ import annotations

import copy
import json
import pathlib
import random
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
from keras_legacy import legacy_file, tf_layer, tf_model  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

from zoonet import formats, ops, zoo  # noqa: E402
from zoonet.formats.keras import from_checkpoint  # noqa: E402
from zoonet.ops.errors import FormatError, InputError, UnsupportedFormatError, ZoonetError  # noqa: E402
from zoonet.ops.sets import keras as keras_set  # noqa: E402
from zoonet.ops.types import Array  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


# -- topology ----------------------------------------------------------------------------------------------------


def test_shared_layers_and_models_inputs_and_outputs(tmp_path: pathlib.Path) -> None:
    """A layer and a model used twice, a model in a model in a model, frozen parts, inputs used out of order."""
    shared = L.Dense(4, name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, [L.BatchNormalization()(inner_input), shared(L.Dense(4)(inner_input))])
    tower = keras.Sequential([keras.Input((3,)), L.Dense(4), L.BatchNormalization(), L.ReLU()], name="tower")
    tower.trainable = False
    a, b, unused = keras.Input((3,), name="a"), keras.Input((3,), name="b"), keras.Input((2,), name="unused")
    x, y = tower(a), tower(b)
    first, second = inner(x)
    third, _ = inner(y)
    model = keras.Model([b, unused, a], [second, L.Add()([first, third]), shared(x), L.Concatenate()([x, y])])
    keras_oracles.scrambled(model)
    keras_oracles.check(model, [floats(2, 3), floats(2, 2), floats(2, 3, seed=2)], tmp_path)
    read = keras_oracles.load(tmp_path / "model.keras")
    assert [info.name for info in read.inputs] == ["b", "unused", "a"]
    assert {"tower/dense_1/kernel", "tower/batch_normalization_1/gamma"} <= read.state.keys() | read.weights.keys()
    frozen = [name for name in read.state if name.startswith("tower/")]
    assert len(frozen) == 6, "frozen weights are state"
    assert set(read.updates) == {n for n in read.state if "moving" in n and not n.startswith("tower/")}


def test_inputs_and_outputs_by_name(tmp_path: pathlib.Path) -> None:
    a, b = keras.Input((3,), name="first"), keras.Input((2,), name="second", dtype="int32")
    model = keras.Model({"x": a, "y": b}, {"p": L.Dense(2, name="p")(a), "q": L.Embedding(5, 3, name="q")(b)})
    keras_oracles.scrambled(model)
    model.save(tmp_path / "a.keras")
    loaded = zoo.load(tmp_path / "a.keras")
    x, ids = floats(4, 3), np.array([[1, 2]] * 4)
    result = loaded.run({"first": x, "second": ids})
    expected = model({"x": x, "y": ids})
    assert list(result) == ["p", "q"]
    for key, array in result.items():
        keras_oracles.close(array, expected[key].detach().numpy(), key)
    with pytest.raises(InputError, match="the input 'second' is missing"):
        loaded.run({"first": x})


def test_sizes_that_vary(tmp_path: pathlib.Path) -> None:
    model = keras_oracles.scrambled(
        keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3, strides=2), L.GlobalMaxPooling2D(), L.Dense(2)])
    )
    model.save(tmp_path / "a.keras")
    loaded = zoo.load(tmp_path / "a.keras")
    assert str(loaded.network.config.inputs[0]) == "float32[?, ?, ?, 3]"
    assert str(loaded.network.config.outputs[0]) == "float32[?, 2]"
    for size in (9, 14):
        x = floats(2, size, size + 1, 3)
        keras_oracles.close(loaded(x), model(x).detach().numpy(), str(size))
    with pytest.raises(InputError, match="wrong shape"):
        loaded(floats(2, 9, 9, 4))


def test_sequential_without_input_layer(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
    model(floats(1, 3))
    keras_oracles.check(keras_oracles.scrambled(model), [floats(2, 3)], tmp_path)


# -- layers of one's own -----------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Scaled(L.Layer):
    def __init__(self, power: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x: Any) -> Any:
        return x * self.factor**self.power

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


def test_a_layer_of_ones_own(tmp_path: pathlib.Path) -> None:
    model = keras_oracles.scrambled(keras.Sequential([keras.Input((4, 3)), Scaled(2), L.Dense(2)]))
    model.save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedFormatError, match="layer 'scaled' is of the class tests>Scaled") as caught:
        keras_oracles.load(tmp_path / "a.keras")
    assert '@layer("Scaled")' in str(caught.value)

    @keras_set.layer("tests>Scaled", "Scaled", weights=["factor"])
    def scaled(inputs: Array, factor: Array, /, power: int = 1) -> Array:
        return ops.multiply(inputs, ops.pow(factor, float(power)))

    keras_oracles.check(model, [floats(2, 4, 3)], tmp_path)


def test_lambda_is_refused_unless_declared(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x * 2 + 1, name="twice"), L.Dense(2)])
    keras_oracles.scrambled(model)
    paths = [keras_oracles.saved(model, tmp_path, suffix) for suffix in (".keras", ".h5")]
    for path in paths:
        with pytest.raises(UnsupportedFormatError, match="'twice' is a Lambda: it consists of Python code") as caught:
            keras_oracles.load(path)
        assert '@layer("Lambda:twice")' in str(caught.value)

    @keras_set.layer("Lambda:twice", any_options=True)
    def twice(inputs: Array, /) -> Array:
        return ops.add(ops.multiply(inputs, 2.0), 1.0)

    for path in paths:
        x = floats(2, 3)
        keras_oracles.close(keras_oracles.run(keras_oracles.load(path), x)[0], model(x).detach().numpy(), str(path))


def test_an_activation_of_ones_own(tmp_path: pathlib.Path) -> None:
    @keras.saving.register_keras_serializable("tests")
    def bent(x: Any) -> Any:
        return keras.ops.sqrt(x * x + 1) + x

    model = keras_oracles.scrambled(keras.Sequential([keras.Input((3,)), L.Dense(2, activation=bent)]))
    model.save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedFormatError, match="has an activation that is not known"):
        keras_oracles.load(tmp_path / "a.keras")

    @keras_set.activation("bent", "tests>bent")
    def ours(x: Array) -> Array:
        return ops.add(ops.sqrt(ops.add(ops.square(x), 1.0)), x)

    keras_oracles.check(model, [floats(4, 3)], tmp_path, formats=(".keras",))


def test_activations_that_are_layers(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(4, activation=L.LeakyReLU(0.3)),
            L.Dense(4, activation=L.ReLU(6.0)),
            L.Dense(4, activation=L.ELU(0.5)),
            L.Activation(L.Softmax(axis=-1)),
        ]
    )
    keras_oracles.check(keras_oracles.scrambled(model), [3 * floats(4, 3)], tmp_path)


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    class Own(keras.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense = L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def get_config(self) -> dict[str, Any]:
            return {}

    model = Own()
    model(floats(1, 3))
    model.save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedFormatError, match="class Own, whose computation is Python code"):
        keras_oracles.load(tmp_path / "a.keras")
    renorm = keras.Sequential([keras.Input((3,)), L.BatchNormalization(renorm=True)])
    renorm.save(tmp_path / "b.keras")
    with pytest.raises(UnsupportedFormatError, match="renorm"):
        keras_oracles.load(tmp_path / "b.keras")
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    model.save_weights(tmp_path / "c.weights.h5")
    with pytest.raises(UnsupportedFormatError, match="weights only, and no model"):
        keras_oracles.load(tmp_path / "c.weights.h5")


def test_a_fixed_batch(tmp_path: pathlib.Path) -> None:
    """Layers that take one batch only keep it; others take any, as in Keras."""
    inputs = keras.Input(batch_shape=(2, 5, 4))
    model = keras.Model(inputs, keras.ops.reshape(L.Dense(3)(inputs), (2, 15)))
    keras_oracles.check(keras_oracles.scrambled(model), [floats(2, 5, 4)], tmp_path)
    model = keras.Sequential([keras.Input(batch_shape=(4, 3)), L.Dense(2)])
    model.save(tmp_path / "a.keras")
    keras_oracles.close(zoo.load(tmp_path / "a.keras")(floats(7, 3)), model(floats(7, 3)).detach().numpy(), "any")


def test_quantised_layers(tmp_path: pathlib.Path) -> None:
    """int8 in Dense and Embedding as Keras computes it; what is quantised otherwise is named."""
    layers = [L.Embedding(9, 6), L.Dense(5, activation="relu"), L.Flatten(), L.Dense(3, use_bias=False)]
    model = keras_oracles.scrambled(keras.Sequential([keras.Input((4,), dtype="int32"), *layers]))
    model.quantize("int8")
    ids = np.random.default_rng(0).integers(0, 9, (3, 4)).astype(np.int32)
    keras_oracles.check(model, [ids], tmp_path, gradients=False)
    loaded = zoo.load(tmp_path / "model.keras")
    assert list(loaded.network.weights) == ["dense/bias"], "what is rounded is not trained"
    loaded.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")(ids).detach().numpy()
    keras_oracles.close(loaded(ids), again, "loaded by Keras")
    x = keras.Input((4, 6))
    for mode, layer in (("int4", L.Dense(4, name="q")), ("int8", L.EinsumDense("abc,cd->abd", (None, 4), name="q"))):
        other = keras.Model(x, layer(x))
        other.quantize(mode)
        for suffix in (".keras", ".h5"):
            with pytest.raises(UnsupportedFormatError, match=r"the layer 'q' .* is quantised in a way that is not"):
                keras_oracles.load(keras_oracles.saved(other, tmp_path, suffix))


@pytest.mark.parametrize("class_name", ["TextVectorization", "StringLookup", "Hashing"])
def test_layers_on_texts_are_refused(class_name: str) -> None:
    layers = [tf_layer("InputLayer", "x", [], batch_input_shape=[None, 1], dtype="string")]
    layers += [tf_layer(class_name, "words", [[["x", 0, 0, {}]]])]
    config = {"config": tf_model("m", layers, ["x"], ["words"])}
    with pytest.raises(
        UnsupportedFormatError, match=f"layer 'words' is a {class_name}, which is not computed"
    ) as caught:
        from_checkpoint(formats.Checkpoint({}, config, "keras"))
    assert "save the part of the model after it" in str(caught.value)


def test_whether_a_layer_trains_is_for_the_caller_to_say(tmp_path: pathlib.Path) -> None:
    """Keras 3 keeps `training=True` of a call in the file, and lets the model's own argument decide."""
    inputs = keras.Input((8, 8, 3))
    x = L.Resizing(6, 6)(L.RandomRotation(0.2)(L.RandomFlip()(inputs)))
    keras_oracles.check(keras.Model(inputs, L.Dropout(0.5)(x, training=True)), [floats(2, 8, 8, 3)], tmp_path)
    layers = [tf_layer("InputLayer", "x", [], batch_input_shape=[None, 3])]
    layers += [tf_layer("Dropout", "d", [[["x", 0, 0, {"training": True}]]], rate=0.5)]
    path = legacy_file(tmp_path / "a.h5", tf_model("m", layers, ["x"], ["d"]), {}, "2.4.0")  # here it holds
    with pytest.raises(UnsupportedFormatError, match="'d' is always in training mode"):
        keras_oracles.load(path)


# -- broken and hostile files ------------------------------------------------------------------------------------


def example(tmp_path: pathlib.Path) -> list[Any]:
    """Checkpoints of a model with many kinds of layers, of both formats."""
    inputs = keras.Input((6, 6, 2))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(inputs))
    x = L.MaxPooling2D()(L.Add()([x, L.DepthwiseConv2D(1)(x)]))
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(L.Reshape((9, 4))(x))
    x = L.MultiHeadAttention(2, 2)(x, x)
    x = L.TimeDistributed(keras.Sequential([keras.Input((6,)), L.Dense(3)]))(x)
    model = keras.Model(inputs, L.Softmax()(L.Dense(2)(L.Flatten()(x)) * 2.0))
    return [formats.read(keras_oracles.saved(model, tmp_path, suffix)) for suffix in (".keras", ".h5")]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(value, key), *places(item)]]


STRANGE = [None, -1, 0, 1, 2**40, 1.5, True, "", "x", "Dense", [], [1], {}, {"class_name": "Dense"}, [["a", 0, 0]]]


def mutated(config: Any, generator: random.Random) -> Any:
    """A configuration with one to three values replaced or taken away."""
    changed = copy.deepcopy(config)
    for _ in range(generator.randint(1, 3)):
        container, key = generator.choice(places(changed) or [({"": None}, "")])
        if generator.random() < 0.3:
            container.pop(key)
        else:
            container[key] = copy.deepcopy(generator.choice(STRANGE))
    return changed


def fuzz(tmp_path: pathlib.Path, count: int) -> None:
    """Mutated configurations give a model, or an error of ours."""
    generator = random.Random(0)
    checkpoints = example(tmp_path)
    failed = 0
    for number in range(count):
        checkpoint = checkpoints[number % 2]
        key = "config" if number % 2 == 0 else "model_config"
        metadata = {**checkpoint.metadata, key: mutated(checkpoint.metadata[key], generator)}
        try:
            from_checkpoint(formats.Checkpoint(checkpoint, metadata, checkpoint.format))
        except ZoonetError:
            failed += 1
    assert count / 20 < failed < count


def test_mutated_configurations(tmp_path: pathlib.Path) -> None:
    fuzz(tmp_path, 60)


@pytest.mark.slow
def test_many_mutated_configurations(tmp_path: pathlib.Path) -> None:
    fuzz(tmp_path, 20_000)


def test_cycles_depth_and_missing_weights(tmp_path: pathlib.Path) -> None:
    checkpoint = example(tmp_path)[0]
    config = copy.deepcopy(checkpoint.metadata["config"])
    layers = {layer["name"]: layer for layer in config["config"]["layers"]}
    tensor = layers["conv2d"]["inbound_nodes"][0]["args"][0]
    tensor["config"]["keras_history"] = ["flatten", 0, 0]
    with pytest.raises(FormatError, match="have a cycle"):
        from_checkpoint(formats.Checkpoint(checkpoint, {"config": config}, "keras"))
    deep: Any = {"class_name": "Dense", "config": {"name": "dense"}}
    for _ in range(60):
        deep = {"class_name": "Sequential", "config": {"name": "s", "layers": [deep]}}
    with pytest.raises(FormatError, match="nested too deeply"):
        from_checkpoint(formats.Checkpoint({}, {"config": deep}, "keras"))
    fewer = {name: tensor for name, tensor in checkpoint.items() if name != "layers/conv2d/vars/1"}
    with pytest.raises(FormatError, match="no weight 'conv2d/bias'"):
        from_checkpoint(formats.Checkpoint(fewer, checkpoint.metadata, "keras"))


def test_models_that_call_each_other_many_times() -> None:
    """Each model calls the one before it twice: 2^38 calls in a short file."""
    layer = {"class_name": "Activation", "config": {"name": "a", "activation": "relu", "trainable": True}}
    inner: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    for _ in range(38):
        inner |= {"name": "m", "inbound_nodes": [[["x", 0, 0, {}]], [["m", 0, 0, {}]]]}
        entry = tf_layer("InputLayer", "x", [], batch_input_shape=[None, 2])
        inner = tf_model("m", [entry, inner], ["x"], ["m"])
        inner["config"]["output_layers"] = [["m", 1, 0]]
    with pytest.raises(ZoonetError, match="too often"):
        from_checkpoint(formats.Checkpoint({}, {"config": inner}, "keras"))


HUGE: dict[str, Any] = {
    "Resizing": {"height": 2**34, "width": 2**34},
    "UpSampling2D": {"size": [2**20, 2**20], "interpolation": "bilinear"},
    "CenterCrop": {"height": 2**34, "width": 2**34},
    "ZeroPadding2D": {"padding": [2**40, 2**40]},
    "Cropping2D": {"cropping": [2**40, 2**40]},
}


@pytest.mark.parametrize("class_name", HUGE)
def test_sizes_that_no_machine_has(class_name: str) -> None:
    """An error of ours, or a model that was only described: nothing of that size is made by reading."""
    layers = [tf_layer("InputLayer", "x", [], batch_input_shape=[None, 4, 4, 3])]
    layers += [tf_layer(class_name, "y", [[["x", 0, 0, {}]]], **HUGE[class_name])]
    checkpoint = formats.Checkpoint({}, {"config": tf_model("m", layers, ["x"], ["y"])}, "keras")
    if class_name == "ZeroPadding2D":
        assert from_checkpoint(checkpoint).outputs[0].shape == (None, 4 + 2**41, 4 + 2**41, 3)
        return
    with pytest.raises(ZoonetError, match="'y'"):
        from_checkpoint(checkpoint)


def test_layers_of_countless_outputs_and_copies() -> None:
    """Parts that no machine can list, and layers in both directions inside one another, 2^20 in all."""
    layers = [tf_layer("InputLayer", "x", [], batch_input_shape=[None, 4, 4])]
    call: list[Any] = [["x", 0, 0, {"num_or_size_splits": 2**40, "axis": 1}]]
    config = tf_model("m", [*layers, tf_layer("TFOpLambda", "f", call, function="split")], ["x"], ["f"])
    with pytest.raises(ZoonetError, match="'f' gives too many outputs"):
        from_checkpoint(formats.Checkpoint({}, {"config": config}, "keras"))
    call[0][3]["num_or_size_splits"] = "many"
    config = tf_model("m", [*layers, tf_layer("TFOpLambda", "f", call, function="split")], ["x"], ["f"])
    with pytest.raises(ZoonetError, match=r"keras\.ops\.split needs the parts"):
        from_checkpoint(formats.Checkpoint({}, {"config": config}, "keras"))
    inner: dict[str, Any] = {"class_name": "LSTM", "config": {"name": "l", "units": 2}}
    for _ in range(19):
        both = {"class_name": "Bidirectional", "config": {"name": "b", "layer": inner}}
        inner = {"class_name": "RNN", "config": {"name": "r", "cell": both}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [inner]}}
    with pytest.raises(ZoonetError, match="another one inside"):
        from_checkpoint(formats.Checkpoint({}, {"config": config}, "keras"))


def test_sequences_that_never_end(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((5, 3)), L.SimpleRNN(2)])
    checkpoint = formats.read(keras_oracles.saved(model, tmp_path, ".keras"))
    config = json.loads(json.dumps(checkpoint.metadata["config"]).replace("[null, 5, 3]", "[null, 10000000000, 3]"))
    with pytest.raises(FormatError, match="the number of steps is too large"):
        from_checkpoint(formats.Checkpoint(checkpoint, {"config": config}, "keras"))


def test_old_files_of_many_layers_become_new_ones(tmp_path: pathlib.Path) -> None:
    """Nested and shared models, wrappers, attention: a legacy file written as .keras and loaded by Keras."""
    block = keras.Sequential([keras.Input((4,)), L.Dense(4, activation="gelu"), L.LayerNormalization()], name="block")
    inner_input = keras.Input((9, 4))
    inner = keras.Model(inner_input, L.MultiHeadAttention(2, 2)(inner_input, inner_input), name="inner")
    inputs, ids = keras.Input((6, 6, 2), name="picture"), keras.Input((9,), dtype="int32", name="ids")
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(inputs))
    x = L.PReLU(shared_axes=[1, 2])(L.MaxPooling2D()(L.Add()([x, L.DepthwiseConv2D(1)(x)])))
    x = L.Concatenate(axis=1)([L.Reshape((9, 4))(x), L.Embedding(7, 4)(ids)])
    x = inner(L.Cropping1D((4, 5))(x))
    x = L.Add()([x, L.TimeDistributed(block)(x), inner(x)])
    x = L.Bidirectional(L.GRU(3, reset_after=False))(x)
    outputs = [L.Dense(2, activation="softmax")(x), L.Dropout(0.2)(L.LeakyReLU(0.1)(x))]
    model = keras_oracles.scrambled(keras.Model([inputs, ids], outputs))
    old = zoo.load(keras_oracles.saved(model, tmp_path, ".h5"))
    old.save(tmp_path / "new.keras")
    arrays = [floats(2, 6, 6, 2), np.random.default_rng(0).integers(0, 7, (2, 9)).astype(np.int32)]
    _, expected = keras_oracles.outputs_of(model, arrays)
    _, loaded = keras_oracles.outputs_of(keras.models.load_model(tmp_path / "new.keras"), arrays)
    for ours, theirs, again in zip(old(*arrays), expected, loaded, strict=True):
        keras_oracles.close(ours, theirs.detach().numpy(), "read")
        keras_oracles.close(again.detach().numpy(), theirs.detach().numpy(), "loaded by Keras")
