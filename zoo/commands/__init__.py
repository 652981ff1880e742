"""The commands of `zoonet`, one file each."""

from zoonet.zoo.commands import cache, mirror
from zoonet.zoo.commands.bench import bench
from zoonet.zoo.commands.convert import convert
from zoonet.zoo.commands.download import download
from zoonet.zoo.commands.eval import evaluate
from zoonet.zoo.commands.list import list_models
from zoonet.zoo.commands.run import run
from zoonet.zoo.commands.show import show
from zoonet.zoo.commands.train import train

__all__ = ["bench", "cache", "convert", "download", "evaluate", "list_models", "mirror", "run", "show", "train"]
