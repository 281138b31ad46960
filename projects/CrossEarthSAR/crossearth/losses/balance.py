"""The load balance loss of a sparse mixture of experts (paper Sec. 3.3, eq. 11).

The same form as the auxiliary loss of GShard and of the Switch Transformer (https://arxiv.org/abs/2101.03961).
"""

from __future__ import annotations

from torch import Tensor


def load_balance(share: Tensor, probability: Tensor) -> Tensor:
    """Return n * sum_k f_k p_k: 1 where all experts are used alike, at most n.

    The gradient flows through `probability` alone, since a choice has none.

    Args:
        share: (E,) fraction of tokens that went to each expert; sums to the number of experts a token goes to.
        probability: (E,) mean routing probability of each expert; sums to 1.

    Returns:
        0-d, without the factor lambda of the paper.
    """
    return len(share) * (share.detach() * probability).sum()
