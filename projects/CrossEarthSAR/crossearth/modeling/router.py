"""Which expert a token goes to, from the token and the physics of its image (paper Sec. 3.3, eq. 8-9).

Letters: N images, L tokens an image, T = N*L, C width, D descriptors, E experts, k experts a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmovseg.errors import UserError

Gate = Literal["st", "renorm", "softmax"]


@dataclass
class Routing:
    """Where tokens go.

    index: (T, k) int64, the experts of a token, likeliest first.
    gates: (T, k) float32 weights of their outputs; None = all are 1, and nothing has to be multiplied.
    probabilities: (T, E) float32, the softmax over all experts.
    """

    index: Tensor
    gates: Tensor | None
    probabilities: Tensor


class Router(nn.Module):
    """Linear layer on [token || descriptors], softmax, the k largest. Always in float32.

    Gates, all of which leave the function of the dense model unchanged at the start except ``softmax``:

    - ``renorm``: pi_k over the sum of the chosen ones, as eq. 9 has it. With k = 1 that is the constant 1, so the task
      teaches the router nothing, and the balance loss alone moves it.
    - ``softmax``: pi_k itself, as in the Switch Transformer. With k = 1 every output starts at about 1/E of the dense
      model's.
    - ``st``: the value of ``renorm`` with the gradient of ``softmax`` (straight through): the start is exact, and the
      task reaches the router. The default for that reason.

    Args:
        dim: C.
        num_experts: E.
        top_k: k, from 1 to E.
        gate: see above.
        num_descriptors: D; 0 = the router reads tokens alone.
        init_std: of the first weights (normal, cut at two deviations). With zeros every tie would go to expert 0.

    Raises:
        UserError: an unknown gate, or a k that is no number of experts.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_experts: int,
        top_k: int = 1,
        gate: Gate = "st",
        num_descriptors: int = 3,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if gate not in get_args(Gate):
            raise UserError(f"gate must be one of {', '.join(get_args(Gate))}, got '{gate}'")
        if not 1 <= top_k <= num_experts:
            raise UserError(f"top_k is {top_k} but must lie between 1 and the number of experts, {num_experts}")
        self.dim, self.top_k, self.num_descriptors = dim, top_k, num_descriptors
        self.gate: Gate = gate
        self.weight = nn.Parameter(torch.empty(num_experts, dim + num_descriptors))
        self.bias = nn.Parameter(torch.zeros(num_experts))
        nn.init.trunc_normal_(self.weight, std=init_std, a=-2 * init_std, b=2 * init_std)

    @property
    def is_constant(self) -> bool:
        """Whether the gates are 1 whatever the router says, so that no task can teach it."""
        return self.gate == "renorm" and self.top_k == 1

    def forward(self, tokens: Tensor, descriptors: Tensor | None) -> Routing:
        """Route.

        Args:
            tokens: (N, L, C).
            descriptors: (N, D) float32; None where the router reads tokens alone.

        Raises:
            ValueError: descriptors are missing or were not expected.
        """
        if (descriptors is None) != (self.num_descriptors == 0):
            raise ValueError(f"the router expects {self.num_descriptors} descriptors an image")
        with torch.autocast(tokens.device.type, enabled=False):
            logits = nn.functional.linear(tokens.float(), self.weight[:, : self.dim].float(), self.bias.float())
            if descriptors is not None:
                logits = logits + (descriptors.float() @ self.weight[:, self.dim :].float().T)[:, None]
            probabilities = logits.flatten(0, 1).softmax(dim=-1)
            chosen, index = probabilities.topk(self.top_k, dim=-1)
            return Routing(index, self._gates(chosen), probabilities)

    def _gates(self, chosen: Tensor) -> Tensor | None:
        """(T, k) probabilities of the chosen experts -> their gates."""
        if self.gate == "softmax":
            return chosen
        if self.gate == "renorm":
            return None if self.is_constant else chosen / chosen.sum(dim=-1, keepdim=True)
        own = chosen.detach()
        return own / own.sum(dim=-1, keepdim=True) + (chosen - own)  # the bracket is exactly 0
