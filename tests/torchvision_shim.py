"""Makes timm importable where PyTorch is built for the CPU and torchvision is not.

timm needs torchvision, whose only wheels on PyPI for Linux on x86 are built for CUDA. Beside a CPU
PyTorch these do not load their operators and fail at import, because they register fake kernels of
operators that nobody defined. In the environment itself such a torchvision would break transformers
too, which imports it if it is there. So `make setup` puts the two into a folder of their own, and
importing this module before timm adds the folder and defines the operators' names; no model tested
here calls them. A torchvision that works is left alone.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")  # registered by torchvision whether its operators were loaded or not
_library: torch.library.Library | None = None  # the definitions last as long as this object

if find_spec("timm") is None:
    sys.path.append(str(Path(sys.prefix) / "vision"))
try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    pass  # not installed: nobody will import it
except RuntimeError:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left half made
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
