"""Stable rank ‖W‖_F²/‖W‖₂²: how many directions a weight really uses, from 1 to its rank.

Insensitive to small singular values, unlike the rank. A convolution [out, in, …] is the matrix
[out, in·…].
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup._check import within
from groundup.measure._rows import whole

_BLOCK = 8
_CHECK_EVERY = 5
_LONGEST = 300


def stable_rank(weight: Tensor) -> Tensor:
    """‖W‖_F²/‖W‖₂² by all singular values: 0-dim float64; nan for W = 0.

    Args:
        weight: [out, in, …].

    Raises:
        ValueError: fewer than two dimensions.

    Example:
        >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0])))
        tensor(1.5000, dtype=torch.float64)
    """
    values = torch.linalg.svdvals(_matrix(weight).to(torch.float64))
    return values.square().sum() / values[0].square()


def stable_rank_by_power(weight: Tensor, tolerance: float = 1e-2) -> Tensor:
    """The same by power iteration, for large weights: 0-dim float64.

    Eight vectors at once are multiplied by W·Wᵀ (or Wᵀ·W, the smaller) and made orthogonal until
    the best of them, v with θ = ‖Wᵀv‖², leaves a residual ‖W·Wᵀv − θ·v‖ of at most `tolerance`·θ.
    Then an eigenvalue of W·Wᵀ lies within tolerance·θ of θ ≤ ‖W‖₂², and it is the largest unless
    all eight began orthogonal to it: the result is above the exact one by a factor of at most 1 +
    tolerance. The start is the same every time, and draws nothing from torch's global random state.
    After 300 rounds without convergence all singular values are computed.

    Args:
        weight: [out, in, …]; the work is 4·8·out·in operations a round, in float32.
        tolerance: relative, in [1e-4, 1].

    Raises:
        ValueError: fewer than two dimensions, or a tolerance out of its range.
    """
    within("tolerance", tolerance, 1e-4, 1.0)
    matrix = _matrix(weight).to(torch.float32)
    total = torch.linalg.vector_norm(matrix, dtype=torch.float64)
    if not 0 < float(total) < torch.inf:
        return total * torch.nan
    matrix = matrix / total.to(torch.float32)  # so that no square overflows, or vanishes
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    if matrix.shape[0] <= _BLOCK:
        return stable_rank(matrix)
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[0], _BLOCK, generator=draw).to(matrix.device)
    basis = torch.linalg.qr(start).Q
    for round_ in range(1, _LONGEST + 1):
        image = matrix.T @ basis
        product = matrix @ image
        if round_ % _CHECK_EVERY == 0:
            # Rayleigh and Ritz: the best combination of the eight.
            values, vectors = torch.linalg.eigh(image.T @ image)
            largest, best = values[-1], vectors[:, -1]
            residual = torch.linalg.vector_norm(product @ best - largest * (basis @ best))
            if float(residual) <= tolerance * float(largest):
                return 1.0 / largest.to(torch.float64)
        basis = torch.linalg.qr(product).Q
    return stable_rank(matrix)


def _matrix(weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        raise ValueError(
            f"weight has shape {list(weight.shape)}, but must have two dimensions at least"
        )
    return whole(weight).flatten(1)
