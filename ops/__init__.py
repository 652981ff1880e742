"""The operator set: declarations, graph, tracing, gradients, execution and devices.

Every operator is a function of this package (`ops.relu`, `ops.conv`, …); `op` and `composite` declare further ones.
"""

from zoonet.ops.comparisons import *
from zoonet.ops.devices import (
    array_module as array_module,
)
from zoonet.ops.devices import (
    device_of as device_of,
)
from zoonet.ops.devices import (
    is_array as is_array,
)
from zoonet.ops.devices import (
    to_device as to_device,
)
from zoonet.ops.elementary import *
from zoonet.ops.elementwise import *
from zoonet.ops.errors import *
from zoonet.ops.execute import Program as Program
from zoonet.ops.execute import compile as compile
from zoonet.ops.gradients import (
    check_gradients as check_gradients,
)
from zoonet.ops.gradients import (
    grad as grad,
)
from zoonet.ops.gradients import (
    value_and_grad as value_and_grad,
)
from zoonet.ops.gradients import (
    vjp as vjp,
)
from zoonet.ops.graph import Graph as Graph
from zoonet.ops.graph import Node as Node
from zoonet.ops.graph import Value as Value
from zoonet.ops.reductions import *
from zoonet.ops.registry import REGISTRY as REGISTRY
from zoonet.ops.registry import Op as Op
from zoonet.ops.registry import composite as composite
from zoonet.ops.registry import op as op
from zoonet.ops.samples import sample as sample
from zoonet.ops.shapes import *
from zoonet.ops.tracing import Variable as Variable
from zoonet.ops.tracing import evaluate_graph as evaluate_graph
from zoonet.ops.tracing import trace as trace
from zoonet.ops.types import (
    Array as Array,
)
from zoonet.ops.types import (
    DType as DType,
)
from zoonet.ops.types import (
    Mask as Mask,
)
from zoonet.ops.types import (
    TensorType as TensorType,
)
from zoonet.ops.types import (
    as_dtype as as_dtype,
)
from zoonet.ops.types import (
    bfloat16 as bfloat16,
)
from zoonet.ops.types import (
    promote as promote,
)
from zoonet.ops.types import (
    tensor_type as tensor_type,
)
