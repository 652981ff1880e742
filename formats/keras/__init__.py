"""Keras files that hold whole models: a model becomes a `Graph` of operators of the Keras set.

Nothing that a file names is imported or run: layers are looked up in `zoonet.ops.sets.keras`, where layers of one's
own are declared too.
"""

from zoonet.formats.keras.model import KerasModel, from_checkpoint, load

__all__ = ["KerasModel", "from_checkpoint", "load"]
