"""RT-DETR: outputs and gradients of transformers' for its random weights, under the names of published checkpoints."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import formats, ops, zoo
from zoonet.zoo import architectures
from zoonet.zoo.modules import value_and_grad

SIZES: dict[str, dict[str, Any]] = {
    "rtdetr_r18vd": {
        "backbone": {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 3,
    },
    "rtdetr_r50vd": {"backbone": {}},
}


def theirs(name: str, version: str = "") -> Any:
    resnet_parity.torchvision_and_timm()  # transformers imports torchvision here
    transformers = pytest.importorskip("transformers")
    options = dict(SIZES[name])
    backbone = transformers.RTDetrResNetConfig(**options.pop("backbone"), out_indices=[2, 3, 4])
    torch.manual_seed(0)
    config = getattr(transformers, f"RTDetr{version}Config")(
        backbone_config=backbone, num_labels=7, num_queries=12, attn_implementation="eager", **options
    )
    network = getattr(transformers, f"RTDetr{version}ForObjectDetection")(config)
    for n, p in network.named_parameters():  # weights start small or at zero, which would hide what depends on them
        if p.ndim > 1:
            torch.nn.init.normal_(p, 0, (0.1 if "bbox" in n else 1.4) / (p.numel() / p.shape[0]) ** 0.5)
        elif "norm.weight" in n or re.search(r"_proj\.\d\.1\.weight", n):
            torch.nn.init.uniform_(p, 0.5, 1.5)
    network.eval()

    def measure(module: Any, inputs: Any) -> None:
        """Statistics as after training: without them signals would vanish, and queries be as good as each other."""
        module.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        module.running_var.copy_(inputs[0].var((0, 2, 3)) + 0.1)

    norms = [m for m in network.modules() if hasattr(m, "running_var")]
    hooks = [m.register_forward_pre_hook(measure) for m in norms]
    with torch.no_grad():
        network(pixel_values=torch.rand(2, 3, 96, 64))
    for hook in hooks:
        hook.remove()
    return network


def published(name: str) -> str:
    """The name of a parameter in published checkpoints; transformers renames them when it loads."""
    name = name.replace("o_proj", "out_proj").replace("encoder.aifi.", "encoder.encoder.")
    return re.sub(r"(layers\.\d+)\.mlp\.(fc\d)", r"\1.\2", name)


@pytest.mark.parametrize("name", ["rtdetr_r18vd", pytest.param("rtdetr_r50vd", marks=pytest.mark.slow)])
def test_outputs_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def written_out(norm: Any, x: Any) -> Any:
        """torch's own gradient of this is wrong where that of the output is not contiguous (2.13, float64, CPU)."""
        columns = [v.reshape(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
        return (x - columns[0]) / torch.sqrt(columns[1] + norm.eps) * columns[2] + columns[3]

    original = theirs(name).double()  # in float32, rounding grows with depth
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", written_out)
    state = {published(n): p.detach().numpy() for n, p in original.state_dict().items()}
    assert architectures.recognise(state) == [name]
    network = architectures.build(name, classes=7, queries=12)
    network.to(dtype=np.float64).load_state_dict(state)
    x = torch.rand(1, 3, 96, 64, dtype=torch.float64)
    output = original(pixel_values=x)
    noise = [torch.randn(o.shape, dtype=torch.float64) for o in (output.logits, output.pred_boxes)]
    ((output.logits * noise[0]).sum() + (output.pred_boxes * noise[1]).sum()).backward()
    for ours, wanted in zip(network(x.numpy()), (output.logits, output.pred_boxes), strict=True):
        assert resnet_parity.relative(ours, wanted.detach().numpy()) <= 1e-9

    def loss(pixels: Any) -> Any:
        logits, boxes = network(pixels)
        return ops.sum(logits * noise[0].numpy()) + ops.sum(boxes * noise[1].numpy())

    grads = {published(n): p.grad.numpy() for n, p in original.named_parameters() if p.grad is not None}
    chosen = [*list(grads)[::11], *(n for n in grads if "0.encoder_attn" in n)]
    _, gradients, _ = value_and_grad(network, loss, trainable=lambda n: n in chosen)(x.numpy())
    largest = max(float(np.abs(grads[n]).max()) for n in chosen)
    for n in chosen:
        scale = max(float(np.abs(grads[n]).max()), 1e-3 * largest)
        assert float(np.abs(gradients[n] - grads[n]).max()) / scale <= 1e-7, n


@pytest.mark.parametrize(
    "version", ["published", "transformers 5", "second", pytest.param("second as saved", marks=pytest.mark.slow)]
)
def test_folders_of_hugging_face(version: str, tmp_path: pathlib.Path) -> None:
    """Written by transformers itself, and with the names that its modules have. Version 2 is the same network."""
    original = theirs("rtdetr_r18vd", "V2" if "second" in version else "")
    original.config.id2label = {k: f"thing {k}" for k in range(7)}
    original.save_pretrained(tmp_path)
    state = {n: p.detach().numpy() for n, p in original.state_dict().items()}
    own = {published(n): a for n, a in state.items()} if version == "published" else state
    if version != "second as saved":
        formats.write(own, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false, "size": {"height": 64, "width": 96}}')
    model = zoo.load(tmp_path)
    assert (model.architecture, model.labels[6]) == ("rtdetr_r18vd", "thing 6")
    assert (model.preprocessing.size, model.preprocessing.keep) == ((64, 96), False)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = original(pixel_values=x)
    for ours, wanted in zip(model(x.numpy()), (expected.logits, expected.pred_boxes), strict=True):
        assert resnet_parity.relative(ours, wanted.numpy()) <= 1e-2  # in float32; to 1e-9 in float64 above


@pytest.mark.parametrize(("name", "millions"), [("rtdetr_r18vd", 20), ("rtdetr_r50vd", 42), ("rtdetr_r101vd", 76)])
def test_sizes_as_published(name: str, millions: int) -> None:
    """The table of arXiv:2304.08069, in which training's embedding of classes does not count."""
    assert round(architectures.parameters(name) / 1e6) == pytest.approx(millions, abs=1)


def test_it_runs_on_pictures() -> None:
    model = zoo.create("rtdetr_r18vd", labels=["cat", "dog"], queries=7, seed=0)
    model.task.preprocessing = type(model.preprocessing)(size=(64, 96), keep=False)
    found = model.run(np.zeros((30, 50, 3), np.uint8), conf=0.0)
    assert found.size == (50, 30)
    assert 1 <= len(found) <= 7
