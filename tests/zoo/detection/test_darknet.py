"""Darknet networks: each layer against NumPy or PyTorch on its definition, whole networks against OpenCV's answers."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoonet import ops, zoo
from zoonet.ops.errors import FormatError, MissingFileError, UnsupportedFormatError, ZoonetError
from zoonet.zoo import architectures
from zoonet.zoo.detectors.darknet import Darknet, DarknetConfig
from zoonet.zoo.detectors.darknet_activations import ACTIVATIONS
from zoonet.zoo.modules import initialised_by, value_and_grad

F = torch.nn.functional
RNG = np.random.default_rng(0)
FASTEST = pathlib.Path("yolo-fastest", "yolo-fastest-1.1-xl.weights")


def network(cfg: str, seed: int = 0) -> Darknet:
    with initialised_by(seed):
        return Darknet(DarknetConfig("[net]\nwidth=6\nheight=8\nchannels=4\n" + cfg))


def run(cfg: str, x: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Input, output in the shape of the last layer, and parameters, all random."""
    made = network(cfg)
    state = {n: RNG.uniform(0.5, 1.5, a.shape).astype(np.float32) for n, a in made.state_dict().items()}
    made.load_state_dict(state)
    x = RNG.standard_normal((2, 4, 8, 6)).astype(np.float32) if x is None else x
    y = np.asarray(made(x))
    return x, y.reshape(len(x), *made._layers[-1].output_shape), state


# -- layers ------------------------------------------------------------------------------------------------------------


def test_convolutional() -> None:
    """Darknet's order: convolution, normalisation with ε inside the root, scale, bias, activation."""
    x, y, state = run(
        "[convolutional]\nbatch_normalize=1\nfilters=6\ngroups=2\nsize=3\nstride=2\npad=1\nactivation=leaky"
    )
    z = F.conv2d(torch.tensor(x), torch.tensor(state["0.weights"]), stride=2, padding=1, groups=2).numpy()
    columns = {n: state[f"0.{n}"].reshape(1, -1, 1, 1) for n in ("biases", "scales", "means", "variances")}
    z = (z - columns["means"]) / np.sqrt(columns["variances"] + 1e-5) * columns["scales"] + columns["biases"]
    np.testing.assert_allclose(y, np.where(z > 0, z, 0.1 * z), rtol=1e-4, atol=1e-4)
    x, y, state = run(
        "[convolutional]\nfilters=3\nsize=3\nstride_x=2\nstride_y=1\npadding=1 ; each\ndilation=2\nactivation=linear"
    )
    weights, biases = torch.tensor(state["0.weights"]), torch.tensor(state["0.biases"])
    expected = F.conv2d(torch.tensor(x), weights, biases, (1, 2), 2, 2)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_connected_batchnorm_softmax_avgpool() -> None:
    x, y, state = run("[connected]\noutput=5\nbatch_normalize=1\nactivation=tanh")
    z = x.reshape(2, -1) @ state["0.weights"].T
    z = (z - state["0.means"]) / np.sqrt(state["0.variances"] + 1e-5) * state["0.scales"] + state["0.biases"]
    np.testing.assert_allclose(y[:, :, 0, 0], np.tanh(z), rtol=1e-4, atol=1e-5)
    x, y, state = run("[batchnorm]\n[avgpool]\n[softmax]\ngroups=2\ntemperature=3")
    columns = {n: state[f"0.{n}"].reshape(1, -1, 1, 1) for n in ("biases", "scales", "means", "variances")}
    z = (x - columns["means"]) / np.sqrt(columns["variances"] + 1e-5) * columns["scales"] + columns["biases"]
    powers = np.exp(z.mean((2, 3)).reshape(2, 2, 2) / 3)
    np.testing.assert_allclose(y.reshape(2, 2, 2), powers / powers.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(2, 2, None), (2, 1, None), (3, 1, None), (5, 1, None), (3, 2, None), (2, 2, 0), (3, 2, 4)],
)
def test_maxpool(size: int, stride: int, padding: int | None) -> None:
    """The loop of forward_maxpool_layer: windows start at -padding / 2, rounded towards 0."""
    more = "" if padding is None else f"\npadding={padding}"
    x, y, _ = run(f"[maxpool]\nsize={size}\nstride={stride}{more}")
    pad = size - 1 if padding is None else padding
    for i in range((8 + pad - size) // stride + 1):
        for j in range((6 + pad - size) // stride + 1):
            top, left = i * stride - pad // 2, j * stride - pad // 2
            window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            np.testing.assert_array_equal(y[:, :, i, j], window.max((2, 3)))
    assert y.shape[2:] == ((8 + pad - size) // stride + 1, (6 + pad - size) // stride + 1)


def test_upsample_route_and_dropout() -> None:
    x, y, _ = run(
        "[upsample]\nstride=2\nscale=0.5\n[dropout]\nprobability=.5\n[route]\nlayers=-1,0\ngroups=2\ngroup_id=1"
    )
    up = 0.5 * x.repeat(2, 2).repeat(2, 3)[:, 2:]
    np.testing.assert_array_equal(y, np.concatenate([up, up], 1))


def reorganised(x: np.ndarray, stride: int) -> np.ndarray:
    """The loops of reorg_cpu in pjreddie/darknet, as forward_reorg_layer calls it (forward = 0), on flat arrays."""
    count, c, h, w = x.shape
    flat, out = x.reshape(count, -1), np.zeros((count, x[0].size), x.dtype)
    few = c // stride**2
    for k in range(c):
        for j in range(h):
            for i in range(w):
                offset, plane = divmod(k, few)
                w2, h2 = i * stride + offset % stride, j * stride + offset // stride
                out[:, i + w * (j + h * k)] = flat[:, w2 + w * stride * (h2 + h * stride * plane)]
    return out.reshape(count, c * stride**2, h // stride, w // stride)


def test_reorg() -> None:
    x, y, _ = run("[reorg]\nstride=2")
    np.testing.assert_array_equal(y, reorganised(x, 2))
    x, y, _ = run("[reorg3d]\nstride=2")
    expected = np.concatenate([x[:, :, j::2, i::2] for j in (0, 1) for i in (0, 1)], 1)
    np.testing.assert_array_equal(y, expected)
    _, y, _ = run("[reorg3d]\nstride=2\n[reorg]\nstride=2\nreverse=1", x)
    np.testing.assert_array_equal(y, x)  # the one undoes the other


def test_shortcut() -> None:
    convolution = "[convolutional]\nfilters={}\nactivation=linear\n"
    cfg = convolution.format(3) + convolution.format(5) + "[shortcut]\nfrom=-2\nactivation=relu"
    x, y, state = run(cfg)

    def conv(z: np.ndarray, k: int) -> np.ndarray:
        return np.einsum("oi,nihw->nohw", state[f"{k}.weights"][:, :, 0, 0], z) + state[f"{k}.biases"].reshape(-1, 1, 1)

    first = conv(x, 0)
    second = conv(first, 1)
    expected = second.copy()
    expected[:, :3] += first
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["per_feature", "per_channel"])
@pytest.mark.parametrize("normalization", ["none", "relu", "softmax"])
def test_weighted_shortcut(kind: str, normalization: str) -> None:
    cfg = f"[dropout]\n[activation]\nactivation=relu\n[shortcut]\nfrom=-2\nweights_type={kind}\n"
    x, y, state = run(cfg + f"weights_normalization={normalization}\nactivation=linear")
    w = state["2.weights"].astype(np.float64)
    if normalization == "softmax":
        w = np.exp(w - w.max(0))
    if normalization != "none":
        w = w / (w.sum(0) + 1e-4)  # these weights are positive
    w = w.reshape(2, -1, 1, 1)
    np.testing.assert_allclose(y, np.maximum(x, 0) * w[0] + x * w[1], rtol=1e-5)


def test_sam_and_scale_channels() -> None:
    x, y, _ = run("[activation]\nactivation=logistic\n[activation]\nactivation=relu\n[sam]\nfrom=-2\nactivation=linear")
    gate = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(y, np.maximum(gate, 0) * gate, rtol=1e-5)
    x, y, _ = run("[dropout]\n[avgpool]\n[scale_channels]\nfrom=-2")
    np.testing.assert_allclose(y, x * x.mean((2, 3), keepdims=True), rtol=1e-4, atol=1e-6)


def scalar_activation(name: str, x: float) -> float:
    """`activate` of activations.h, on one number."""
    exp, tanh, floor = np.exp, np.tanh, np.floor
    return {
        "linear": lambda: x,
        "logistic": lambda: 1 / (1 + exp(-x)),
        "loggy": lambda: 2 / (1 + exp(-x)) - 1,
        "relu": lambda: x * (x > 0),
        "relu6": lambda: min(max(x, 0), 6),
        "elu": lambda: x if x >= 0 else exp(x) - 1,
        "selu": lambda: 1.0507 * x if x >= 0 else 1.0507 * 1.6732 * (exp(x) - 1),
        "gelu": lambda: 0.5 * x * (1 + tanh(0.797885 * x + 0.035677 * x**3)),
        "relie": lambda: x if x > 0 else 0.01 * x,
        "ramp": lambda: x * (x > 0) + 0.1 * x,
        "leaky": lambda: x if x > 0 else 0.1 * x,
        "revleaky": lambda: x if x > 0 else 0.1 * x,
        "tanh": lambda: tanh(x),
        "plse": lambda: 0.01 * (x + 4) if x < -4 else 0.01 * (x - 4) + 1 if x > 4 else 0.125 * x + 0.5,
        "stair": lambda: floor(x / 2) if floor(x) % 2 == 0 else (x - floor(x)) + floor(x / 2),
        "hardtan": lambda: -1 if x < -1 else 1 if x > 1 else x,
        "lhtan": lambda: 0.001 * x if x < 0 else 0.001 * (x - 1) + 1 if x > 1 else x,
        "softplus": lambda: np.log(exp(x) + 1),
        "swish": lambda: x / (1 + exp(-x)),
        "mish": lambda: x * tanh(np.log(1 + exp(x))),
        "hard_mish": lambda: x if x > 0 else x * x / 2 + x if x > -2 else 0,
    }[name]()


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if not n.startswith("normalize")])
def test_activations(name: str) -> None:
    x = np.linspace(-7.3, 7.7, 192, dtype=np.float32).reshape(1, 4, 8, 6)
    _, y, _ = run(f"[activation]\nactivation={name}", x)
    expected = np.array([scalar_activation(name, float(v)) for v in x.ravel()]).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_activations_over_channels() -> None:
    x, y, _ = run("[activation]\nactivation=normalize_channels")
    positive = np.maximum(x, 0)
    np.testing.assert_allclose(y, positive / (positive.sum(1, keepdims=True) + 1e-4), rtol=1e-5)
    for name, shift in (("softmax", 0), ("softmax_maxval", x.max(1, keepdims=True))):
        _, y, _ = run(f"[activation]\nactivation=normalize_channels_{name}", x)
        powers = np.exp(x - shift)
        np.testing.assert_allclose(y, powers / (powers.sum(1, keepdims=True) + 1e-4), rtol=1e-4)


# -- heads -------------------------------------------------------------------------------------------------------------

YOLO = "[net]\nwidth=64\nheight=32\n[convolutional]\nfilters=16\nsize=1\nstride=1\nactivation=linear\n"


@pytest.mark.parametrize("options", ["", "scale_x_y=1.2", "new_coords=1\nscale_x_y=2.0"])
def test_yolo_boxes(options: str) -> None:
    """get_yolo_box, one cell at a time."""
    cfg = YOLO + f"[yolo]\nmask=0,2\nanchors=10,14, 5,5, 23,27\nclasses=3\nnum=3\n{options}"
    made = Darknet(DarknetConfig(cfg))
    raw = RNG.standard_normal((1, 16, 32, 64)).astype(np.float32)
    head = made._layers[-1]
    found = made.decoder((np.asarray(head(raw)),), (32, 64))[0]
    boxes, scores = found.boxes.reshape(2, 32, 64, 4), found.scores.reshape(2, 32, 64, 3)
    new, scale = "new_coords" in options, 1.2 if "1.2" in options else 2.0 if "2.0" in options else 1.0

    def squash(v: Any) -> Any:
        return v if new else 1 / (1 + np.exp(-v.astype(np.float64)))

    for k, (w, h) in enumerate(((10, 14), (23, 27))):
        for j, i in ((0, 0), (31, 63), (7, 12)):
            t = raw[0, 8 * k : 8 * k + 8, j, i]
            x, y = squash(t[:2]) * scale - (scale - 1) / 2 + (i, j)
            wide, high = (4 * t[2:4] ** 2 if new else np.exp(t[2:4])) * (w, h)
            expected = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
            np.testing.assert_allclose(boxes[k, j, i], expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(scores[k, j, i], squash(t[4]) * squash(t[5:]), rtol=1e-4)


def test_region_boxes() -> None:
    """get_region_box: anchors in cells, a softmax over classes."""
    cfg = YOLO.replace("stride=1", "stride=8") + "[region]\nanchors=1.5,2, 3,1\nclasses=3\ncoords=4\nnum=2\nsoftmax=1"
    made = Darknet(DarknetConfig(cfg))
    raw = RNG.standard_normal((1, 16, 4, 8)).astype(np.float32)
    found = made.decoder((np.asarray(made._layers[-1](raw)),), (32, 64))[0]
    t = raw[0, 8:, 2, 5].astype(np.float64)
    x, y = (1 / (1 + np.exp(-t[:2])) + (5, 2)) * 8
    wide, high = np.exp(t[2:4]) * (3, 1) * 8
    index = 4 * 8 + 2 * 8 + 5
    np.testing.assert_allclose(found.boxes[index], [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], rtol=1e-4)
    powers = np.exp(t[5:])
    np.testing.assert_allclose(found.scores[index], powers / powers.sum() / (1 + np.exp(-t[4])), rtol=1e-4)


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "floats"),
    [
        ("yolov2", 50_983_561),
        ("yolov3", 62_001_757),
        ("yolov3-tiny", 8_858_734),
        ("yolov3-spp", 63_052_381),
        ("yolov4", 64_429_405),
        ("yolov4-tiny", 6_062_814),
    ],
)
def test_networks_have_as_many_floats_as_the_published_files(name: str, floats: int) -> None:
    """The sizes of yolov2.weights (203,934,260 bytes), yolov3.weights (248,007,048) and so on, without the header."""
    made = architectures.build(name)
    assert sum(array.size for array in made.state_dict().values()) == floats
    twenty = architectures.build(name, classes=20)
    assert architectures.fitted(name, twenty.state_dict()).config.classes == 20


@pytest.mark.parametrize("name", ["yolov2-tiny", "yolov3-tiny", "yolov4-tiny"])
def test_networks_run(name: str) -> None:
    model = zoo.create(name, classes=2, labels=["a", "b"], seed=0)
    outputs = model(RNG.random((1, 3, 64, 96)).astype(np.float32))
    strides = {"yolov2-tiny": (32,)}.get(name, (32, 16))
    shapes = [tuple(o.shape) for o in (outputs if isinstance(outputs, tuple) else (outputs,))]
    assert shapes == [(1, (5 if name == "yolov2-tiny" else 3) * 7, 64 // s, 96 // s) for s in strides]


def existing(assets: pathlib.Path) -> pathlib.Path:
    if not (assets / FASTEST).exists():
        pytest.skip("yolo-fastest is absent")
    return assets / FASTEST


def overlap(a: Any, b: Any) -> float:
    """The IoU of two boxes."""
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return float(shared / (sum(areas) - shared))


def test_yolo_fastest(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What is seen in the photo is found where it is, by boxes that were drawn around it by hand."""
    path = existing(assets)
    model = zoo.load(path.with_suffix(".cfg"))
    assert model.labels == zoo.load(path).labels
    assert model.labels[16] == "dog"
    with Image.open(assets / "photos" / "dog.jpg") as photo:
        found = model.run(photo, conf=0.5)
    drawn = {"dog": (133, 221, 309, 540), "bicycle": (127, 137, 567, 420), "car": (468, 75, 677, 169)}
    assert sorted(d.name for d in found) == sorted(drawn)
    for d in found:
        assert overlap(d.box, drawn[d.name]) > 0.7
    model.save(tmp_path / "saved.safetensors")
    again = zoo.load(tmp_path / "saved.safetensors")
    np.testing.assert_array_equal(again.run(assets / "photos" / "dog.jpg", conf=0.5).boxes, found.boxes)


def test_yolo_fastest_at_the_size_of_its_cfg(assets: pathlib.Path) -> None:
    """Boxes and scores that OpenCV 4's dnn module gives for the stretched picture; its ε is 1e-6, so few digits."""
    found = zoo.load(existing(assets)).run(assets / "photos" / "dog.jpg", size=(320, 320), conf=0.5)
    expected = {
        "dog": (0.959, (113.9, 188.6, 385.5, 535.3)),
        "bicycle": (0.893, (113.4, 126.6, 573.4, 497.3)),
        "car": (0.842, (449.4, 78.2, 684.4, 162.4)),
    }
    assert [d.name for d in found] == list(expected)
    for d in found:
        assert d.score == pytest.approx(expected[d.name][0], abs=2e-3)
        np.testing.assert_allclose(d.box, expected[d.name][1], atol=0.2)


# -- files -------------------------------------------------------------------------------------------------------------

SMALL = YOLO + "[yolo]\nanchors=10,14, 5,5\nclasses=3\nnum=2\n"


def write(folder: pathlib.Path, cfg: str = SMALL, floats: int | None = None, stem: str = "net") -> pathlib.Path:
    (folder / f"{stem}.cfg").write_text(cfg)
    made = Darknet(DarknetConfig(cfg)) if floats is None else None
    count = sum(a.size for a in made.state_dict().values()) if made else floats
    numbers = RNG.standard_normal(count).astype("<f4")
    (folder / f"{stem}.weights").write_bytes(struct.pack("<3iq", 0, 2, 5, 0) + numbers.tobytes())
    return folder / f"{stem}.weights"


def test_partners_and_names(tmp_path: pathlib.Path) -> None:
    weights = write(tmp_path)
    assert zoo.load(weights).labels == ("class 0", "class 1", "class 2")
    (tmp_path / "other.names").write_text("a\nb\n")  # of another number of classes
    (tmp_path / "net.names").write_text("cat\ndog\nhen\n\n")
    assert zoo.load(weights).labels == ("cat", "dog", "hen")
    assert zoo.load(weights, labels=["x", "y", "z"]).labels == ("x", "y", "z")
    weights.rename(tmp_path / "net_final.weights")
    assert zoo.load(tmp_path / "net.cfg").labels == zoo.load(tmp_path / "net_final.weights").labels
    (tmp_path / "net_1000.weights").write_bytes(b"")
    with pytest.raises(MissingFileError, match=r"its \.weights is needed.*net_1000.weights, net_final.weights"):
        zoo.load(tmp_path / "net.cfg")
    with pytest.raises(MissingFileError, match="no such weights file"):
        zoo.load(tmp_path / "absent.cfg")


@pytest.mark.parametrize("cut", [3, 30, 33, 60, 200])
def test_truncated_weights_say_where(cut: int, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut] if cut < 200 else path.read_bytes()[:24])
    with pytest.raises(FormatError, match=r"layer 0 \[convolutional\].*expected 64 floats; received"):
        zoo.load(path)


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        (
            SMALL.replace("[yolo]", "[lstm]"),
            UnsupportedFormatError,
            r"line 9, layer 1 \[lstm\]: layers of this type are not read",
        ),
        (
            SMALL.replace("[yolo]", "[gaussian_yolo]"),
            UnsupportedFormatError,
            r"layer 1 \[gaussian_yolo\]: layers of this type are not run",
        ),
        (
            SMALL.replace("=linear", "=wobbly"),
            UnsupportedFormatError,
            r"layer 0 \[convolutional\]: there is no activation 'wobbly'",
        ),
        (
            SMALL.replace("filters=16", "filters=17"),
            FormatError,
            r"layer 1 \[yolo\]: .* filters of the layer before must be 16",
        ),
        (SMALL.replace("10,14", "ten,14"), FormatError, "not a list of numbers"),
        (SMALL + "[route]\nlayers=-9\n", FormatError, "refers to no earlier layer"),
        (
            SMALL + "[maxpool]\n[shortcut]\nfrom=-2\n[maxpool]\nstride=2\n[shortcut]\nfrom=-2\n",
            FormatError,
            "another height",
        ),
        (SMALL + "[maxpool]\nstride=2\n[route]\nlayers=-1,-2\n", FormatError, "cannot be joined"),
        ("[net]\nwidth=8\nheight=8\n", FormatError, "no layers"),
        ("", FormatError, r"starts with the section \[net\]"),
    ],
)
def test_bad_cfg(cfg: str, error: type[ZoonetError], message: str, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, cfg, floats=64)
    with pytest.raises(error, match=message):
        zoo.load(path)


def test_weights_that_are_not_numbers(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    with pytest.raises(FormatError, match="not finite"):
        zoo.load(path)


def test_a_classifier(tmp_path: pathlib.Path) -> None:
    cfg = "[net]\nwidth=8\nheight=8\n[convolutional]\nfilters=5\nactivation=linear\n[avgpool]\n[softmax]\n"
    path = write(tmp_path, cfg)
    model = zoo.load(path)
    assert model.task.name == "image-classification"
    assert len(model.run(np.zeros((9, 9, 3), np.uint8)).top(9)) == 5


def test_known_networks_need_no_cfg(tmp_path: pathlib.Path) -> None:
    state = architectures.build("yolov4-tiny").state_dict()
    numbers = np.zeros(sum(a.size for a in state.values()), "<f4")
    (tmp_path / "w.weights").write_bytes(struct.pack("<3iq", 0, 2, 5, 0) + numbers.tobytes())
    model = zoo.load(tmp_path / "w.weights", arch="yolov4-tiny")
    assert (model.architecture, len(model.labels)) == ("yolov4-tiny", 80)


def test_gradients() -> None:
    """Of a network of many layers, by finite differences along a random direction of all parameters, in float64."""
    cfg = """
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
activation=mish
[convolutional]
filters=8
groups=4
activation=swish
[shortcut]
from=-2
weights_type=per_channel
weights_normalization=softmax
activation=leaky
[maxpool]
size=3
stride=1
[route]
layers=-1,-2
groups=2
group_id=1
[reorg]
stride=2
[upsample]
stride=2
[convolutional]
filters=14
size=1
activation=linear
[yolo]
anchors=3,4, 5,6
classes=2
num=2
scale_x_y=1.1
"""
    made = network(cfg).to(dtype=np.float64)
    x = RNG.standard_normal((2, 4, 8, 6))
    noise = RNG.standard_normal((2, 14, 8, 6))
    _, gradients, _ = value_and_grad(made, lambda a: ops.sum(made(a) * noise))(x)
    steps = {name: RNG.standard_normal(g.shape) for name, g in gradients.items()}
    before = {name: p.copy() for name, p in made.named_parameters()}

    def moved(size: float) -> float:
        made.load_state_dict({n: before[n] + size * d for n, d in steps.items()}, strict=False)
        return float(np.sum(made(x) * noise))

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert len(gradients) == 8
    assert sum(float((g * steps[n]).sum()) for n, g in gradients.items()) == pytest.approx(numeric, rel=1e-4)
