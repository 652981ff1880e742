"""The operator set: declarations, graph, tracing, gradients, execution and devices.

Every operator is a function of this package (`ops.relu`, `ops.conv`, …); `op` and `composite` declare further ones.
"""

from zoonet.ops.creation import *
from zoonet.ops.devices import array_module, device_of, is_array, to_device
from zoonet.ops.elementwise import *
from zoonet.ops.errors import *
from zoonet.ops.gradients import check_gradients, evaluate_graph, grad, value_and_grad, vjp
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.padding import *
from zoonet.ops.reductions import *
from zoonet.ops.registry import REGISTRY, Op, composite, op
from zoonet.ops.samples import sample
from zoonet.ops.shapes import *
from zoonet.ops.slicing import *
from zoonet.ops.tracing import Variable, trace
from zoonet.ops.types import Array, DType, Mask, TensorType, as_dtype, bfloat16, promote, tensor_type
