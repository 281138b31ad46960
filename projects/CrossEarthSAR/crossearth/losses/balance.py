"""The load balance loss of a sparse mixture of experts (paper Sec. 3.3, eq. 11).

The same form as the auxiliary loss of GShard and of the Switch Transformer (https://arxiv.org/abs/2101.03961).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from mmovseg.errors import UserError

BalanceShare = Literal["tokens", "choices"]


def check_balance_share(kind: str) -> BalanceShare:
    """Return a known kind of share. Raises `UserError` for another."""
    for known in get_args(BalanceShare):
        if kind == known:
            return known
    raise UserError(f"balance_share must be one of {', '.join(get_args(BalanceShare))}, got '{kind}'")


def share_of(counts: Tensor, *, top_k: int, kind: BalanceShare) -> Tensor:
    """Return f from the choices of each expert.

    Args:
        counts: (..., E) int64, one choice a token and expert it goes to.
        top_k: experts a token goes to.
        kind: ``tokens``: of all tokens, the share that has the expert among its own (sums to k, as the paper counts);
            ``choices``: of all choices, those of the expert (sums to 1).

    Returns:
        (..., E) float32; 0 where nothing was counted.
    """
    choices = counts.sum(dim=-1, keepdim=True).clamp(min=1).double()
    share = counts / choices
    return (share * top_k if kind == "tokens" else share).float()


def load_balance(share: Tensor, probability: Tensor) -> Tensor:
    """Return n * sum_k f_k p_k: 1 where one expert a token is chosen and all are used alike, n if always the same.

    The gradient flows through `probability` alone, since a choice has none.

    Args:
        share: (E,) f, see `share_of`.
        probability: (E,) mean routing probability of each expert; sums to 1.

    Returns:
        0-d, without the factor lambda of the paper.
    """
    return len(share) * (share.detach() * probability).sum()
