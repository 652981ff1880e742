"""The facade's `Model`: a network with its task, preprocessing, labels and card, and the plans that it runs by."""

from __future__ import annotations

import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError, ShapeError
from zoonet.ops.operands import Traced
from zoonet.ops.types import TensorType, is_floating
from zoonet.zoo.classification import Preprocessing, classify
from zoonet.zoo.modules import Module
from zoonet.zoo.summary import Summary, summarize

Array = Any
_PLANS = 4  # compiled input signatures that are kept; each holds its own folded weights


@dataclass
class Card:
    """What is known of weights: where they come from, on what terms, and how good they are."""

    name: str = ""
    source: str = ""
    licence: str = ""
    accuracy: str = ""
    notes: str = ""


class Model:
    """A network with what it needs to take pictures and give answers.

    network: a Module in inference mode. architecture: its name in the table. labels: one per output of the network.
    preprocessing: what turns a picture into the network's input. card: what is known of the weights.
    """

    def __init__(
        self,
        network: Module,
        architecture: str,
        preprocessing: Preprocessing,
        labels: Sequence[str],
        *,
        card: Card | None = None,
        device: str = "cpu",
    ) -> None:
        self.network = network
        self.architecture = architecture
        self.task = "image-classification"
        self.preprocessing = preprocessing
        self.labels = tuple(labels)
        self.card = card or Card(name=architecture)
        self.device = device
        self._plans: OrderedDict[TensorType, tuple[list[Array], ops.Program]] = OrderedDict()
        self._lock = threading.RLock()
        if device != "cpu":
            network.to(device)

    # -- running -------------------------------------------------------------------------------------------------

    def run(self, source: Any, *, batch: int = 32, progress: Callable[[int, int], None] | None = None) -> Any:
        """Classify a picture, or several.

        source: a path, bytes, a PIL image, an array (H, W), (H, W, C) or (C, H, W), a folder, a batch array, or a
        list of these. batch: how many go through the network at once. progress: called with (done, total).
        Returns a `Classification`, or `Results`, a list of them, for a list, a folder or a batch.
        Raises MissingFileError, FormatError (not a picture, truncated) or InputError.
        """
        return classify(self._scores, self.preprocessing, self.labels, source, batch, progress)

    def _scores(self, inputs: Array) -> Array:
        return ops.to_device(self(inputs), "cpu")

    def __call__(self, x: Array) -> Array:
        """The network on an array (N, channels, H, W), preprocessed already -> scores (N, classes), not probabilities.

        Floats are cast to the network's dtype. It is compiled once per shape; parameters that are assigned anew
        afterwards are noticed, those whose array is changed in place are not until `recompile()`.
        Raises InputError for other shapes and dtypes.
        """
        if isinstance(x, Traced):
            return self.network(x)
        x = self._checked(x)
        return self._plan(TensorType(x.shape, x.dtype))(x)

    def _checked(self, x: Any) -> Array:
        try:
            array = x if ops.is_array(x) else np.asarray(x)
        except (TypeError, ValueError) as error:
            raise InputError("the model cannot take this input", expected="an array", received=str(error)) from None
        channels = getattr(getattr(self.network, "config", None), "channels", None)
        if array.ndim != 4 or 0 in array.shape or (channels and array.shape[1] != channels):
            fix = "add the batch axis, x[None]" if array.ndim == 3 else "use model.run for pictures"
            expected = f"shape (N, {channels or 'channels'}, height, width)"
            raise InputError(
                "the model cannot take this array", expected=expected, received=f"shape {array.shape}", fix=fix
            )
        dtype = next(a.dtype for _, a in self.network.named_parameters())
        if not is_floating(array.dtype):
            raise InputError(
                "the model cannot take this array",
                expected=f"{dtype} (preprocessed)",
                received=array.dtype,
                fix="use model.run for pictures, or cast it",
            )
        return ops.to_device(array.astype(dtype, copy=False), self.device)

    def _plan(self, signature: TensorType) -> ops.Program:
        """The compiled network for an input type, made on first use and again once parameters were replaced."""
        with self._lock:
            arrays = [slot.get() for slot in self.network.slots().values()]
            if signature in self._plans:
                self._plans.move_to_end(signature)
                used, program = self._plans[signature]
                if len(used) == len(arrays) and all(a is b for a, b in zip(used, arrays, strict=True)):
                    return program
            training = [module for _, module in self.network.named_modules() if module.training]
            self.network.eval()
            try:
                program = ops.compile(ops.trace(self.network, signature, name=self.architecture), device=self.device)
            except ShapeError as error:
                raise InputError(
                    f"{self.architecture} cannot take an input of shape {list(signature.shape)}", fix=str(error)
                ) from None
            finally:
                for module in training:
                    module.training = True
            self._plans[signature] = arrays, program
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
            return program

    def recompile(self) -> None:
        """Forget the compiled plans, after arrays of the network were changed in place."""
        with self._lock:
            self._plans.clear()

    # -- description ---------------------------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the preprocessing gives; 224 pixels where that depends on the picture."""
        return self.preprocessing.shape or (self.network.config.channels, 224, 224)  # type: ignore[attr-defined]

    def summary(self, shape: tuple[int, int, int, int] | None = None) -> Summary:
        """Layers, shapes, parameters and operations for an input shape (N, C, H, W); the usual one for one picture."""
        return summarize(self.network, shape or (1, *self.input_shape), self.architecture)

    def __repr__(self) -> str:
        count = sum(int(a.size) for _, a in self.network.named_parameters())
        name = self.card.name or self.architecture
        return (
            f"<Model {name}: {self.architecture}, {self.task}, {len(self.labels)} classes, {count:,} parameters, "
            f"input {'×'.join(map(str, self.input_shape))}, {self.device}>"
        )

    # -- saving --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and configuration so that `zoo.load(path)` runs them again, elsewhere and without `arch`.

        path: a name that ends with .safetensors (one file), with another suffix of a format that can be written
        (.npz, .pt, .pth; the configuration lies beside it, in `<path>.json`), or without suffix: a folder with
        model.safetensors and config.json. Written atomically. Raises UnsupportedFormatError or FileError.
        """
        from zoonet.zoo.storage import save

        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ArgumentError("save takes a path", expected="such as 'model.safetensors'", received=repr(path))
        save(self, pathlib.Path(os.fsdecode(path)))
