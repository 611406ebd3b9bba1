"""Decoders for transformers that none of its own classes is equal to.

Importing this module lets `AutoConfig`, `AutoModel` and `AutoModelForCausalLM` read them, without
remote code: ``import groundup.hf`` and then ``AutoModelForCausalLM.from_pretrained(folder)``.
"""

from __future__ import annotations

try:
    import transformers
except ModuleNotFoundError as error:
    raise ImportError(
        "groundup.hf needs the package transformers: pip install 'groundup[export]'"
    ) from error

from groundup.hf.configuration import GroundupConfig
from groundup.hf.modeling import GroundupForCausalLM, GroundupModel

__all__ = ["GroundupConfig", "GroundupForCausalLM", "GroundupModel"]

transformers.AutoConfig.register(GroundupConfig.model_type, GroundupConfig, exist_ok=True)
transformers.AutoModel.register(GroundupConfig, GroundupModel, exist_ok=True)
transformers.AutoModelForCausalLM.register(GroundupConfig, GroundupForCausalLM, exist_ok=True)
