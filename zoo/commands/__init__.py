"""The commands of `zoonet`, one file each."""

from zoonet.zoo.commands.convert import convert
from zoonet.zoo.commands.eval import evaluate
from zoonet.zoo.commands.list import list_models
from zoonet.zoo.commands.run import run
from zoonet.zoo.commands.show import show
from zoonet.zoo.commands.train import train

__all__ = ["convert", "evaluate", "list_models", "run", "show", "train"]
