"""The operator set: declarations, graph, tracing, gradients, execution and devices.

Every operator is a function of this package (`ops.relu`, `ops.conv`, …); `op` and `composite` declare further ones.
"""

from zoonet.ops.activations import *
from zoonet.ops.adaptive_pooling import *
from zoonet.ops.attention import *
from zoonet.ops.boxes import *
from zoonet.ops.comparisons import *
from zoonet.ops.convolution import *
from zoonet.ops.creation import *
from zoonet.ops.deformation import *
from zoonet.ops.detection import *
from zoonet.ops.devices import *
from zoonet.ops.einsum import *
from zoonet.ops.elementary import *
from zoonet.ops.elementwise import *
from zoonet.ops.errors import *
from zoonet.ops.execute import *
from zoonet.ops.fourier import *
from zoonet.ops.gradients import *
from zoonet.ops.graph import *
from zoonet.ops.grid_sampling import *
from zoonet.ops.indexing import *
from zoonet.ops.inversion import *
from zoonet.ops.joining import *
from zoonet.ops.linear import *
from zoonet.ops.losses import *
from zoonet.ops.normalization import *
from zoonet.ops.padding import *
from zoonet.ops.parts import *
from zoonet.ops.pooling import *
from zoonet.ops.random import *
from zoonet.ops.rearranging import *
from zoonet.ops.recurrent import *
from zoonet.ops.recurrent_cells import *
from zoonet.ops.recurrent_layer import *
from zoonet.ops.reductions import *
from zoonet.ops.regions import *
from zoonet.ops.registry import *
from zoonet.ops.repetition import *
from zoonet.ops.resampling import *
from zoonet.ops.rotary import *
from zoonet.ops.rounding import *
from zoonet.ops.samples import *
from zoonet.ops.scattering import *
from zoonet.ops.shapes import *
from zoonet.ops.slicing import *
from zoonet.ops.softmax import *
from zoonet.ops.sorting import *
from zoonet.ops.standardization import *
from zoonet.ops.statistics import *
from zoonet.ops.tracing import *
from zoonet.ops.types import *

# isort: split
from zoonet.ops import kernels as kernels  # registers them; last, since kernels use every operator
