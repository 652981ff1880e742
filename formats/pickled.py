"""Bare pickles, as `pickle.dump` writes them: of NumPy arrays (also of Python 2), or of PyTorch's tensors. Only read.

A tensor that was pickled without `torch.save` carries its storage as bytes, which are a legacy file of PyTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.formats.checkpoint import Checkpoint
from zoonet.formats.files import map_file
from zoonet.formats.pickle_names import Known, Resolver
from zoonet.formats.pickles import Unpickler
from zoonet.formats.state_dicts import checkpoint_from_object
from zoonet.formats.torch_file import LegacyReader
from zoonet.formats.torch_objects import torch_resolver
from zoonet.ops.errors import FormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe


def recognise(probe: Probe) -> bool:
    """Whether the file looks like a bare pickle (which PyTorch's, asked before, are not)."""
    head = probe.head
    binary = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    starts = (b"(lp", b"(dp", b"(tp", b"}q", b"]q", b"(l(", b"(d(", b"(dV", b"(dS")
    text = head.startswith((*starts, b"cnumpy.c", b"cnumpy._", b"ccollections\nOrderedDict\n"))
    if not (binary or text):
        return False
    with probe.path.open("rb") as stream:
        stream.seek(-1, 2)
        return stream.read(1) == b"."


def read(path: Path, key: str | None = None) -> Checkpoint:
    """Read a pickle of arrays or tensors: one, or lists and dicts of them, named by their keys and positions.

    key: the entry of a checkpoint to take, see `zoonet.formats.state_dicts`.
    """
    plain = torch_resolver(inert=())
    storages = _Storages(path.name, plain)

    def resolve(module: str, name: str) -> Any:
        return storages.known if (module, name) == ("torch.storage", "_load_from_bytes") else plain(module, name)

    unpickler = Unpickler(map_file(path).data, resolve)
    value = unpickler.load()
    return checkpoint_from_object(value, "pickle", path.name, unpickler.opcodes + storages.opcodes, key)


class _Storages:
    """Reads the storages that tensors carry as bytes; the same bytes once, however often the pickle names them."""

    def __init__(self, file_name: str, resolve: Resolver) -> None:
        self.known = Known("torch.storage._load_from_bytes", self._load)
        self.opcodes = 0
        self._name = file_name
        self._resolve = resolve
        self._found: dict[bytes, Any] = {}

    def _load(self, content: Any) -> Any:
        if not isinstance(content, bytes):
            raise FormatError("the pickle has a storage that is not bytes", received=type(content).__name__)
        if content not in self._found:
            reader = LegacyReader(self._name, np.frombuffer(content, np.uint8), self._resolve)
            self._found[content], opcodes = reader.read()
            self.opcodes += opcodes
        return self._found[content]
