"""Array types and the channel order of targets and probability maps, shared by all packages.

Letters in shapes: B batch, C channels, H height, W width.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""Image of any numeric type: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA."""
UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Mask = BoolArray
"""One region (H, W)."""
LabelMap = npt.NDArray[np.int32]
"""Instances (H, W): 0 is background, 1..N are nuclei."""
Labels = npt.NDArray[Any]
"""Instance labels of any integer type and shape."""

FOREGROUND, BORDER, CORE = 0, 1, 2
"""Channels of targets and probability maps."""
CHANNELS = 3
