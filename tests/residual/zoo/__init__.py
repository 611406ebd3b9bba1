"""Small models of every architecture that the table of `groundup.residual.architectures` knows."""

from tests.residual.zoo import (
    minimal,
    timm_vision,
    torch_own,
    transformers_encoders,
    transformers_lm,
)
from tests.residual.zoo.specimen import Specimen

SPECIMENS: list[Specimen] = [
    *torch_own.SPECIMENS,
    *minimal.SPECIMENS,
    *transformers_lm.SPECIMENS,
    *transformers_encoders.SPECIMENS,
    *timm_vision.SPECIMENS,
]

__all__ = ["SPECIMENS", "Specimen"]
