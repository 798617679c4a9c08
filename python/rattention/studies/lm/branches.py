"""RAttention with one part changed, and one of its branches alone: what the ablations compare.

`rattention.nn` has the mechanism itself; these layers put the operations of `rattention.torch` together
again, with the same projections and norm weights, so that one part at a time can be left out or replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

import rattention.torch as rt
from rattention.nn import RAttention, SelfAttention
from rattention.nn.recurrence import Decay
from rattention.torch.calibration import EPS
from rattention.torch.rotary import rotary

if TYPE_CHECKING:
    from rattention.studies.lm.settings import ModelSize


@dataclass(frozen=True)
class Branches:
    """What differs from RAttention."""

    window: int | None
    """Of the local branch; None is no local branch, and the linear one then sees each token itself, too."""
    feature_map: Literal["softmax", "relu", "identity"] = "softmax"
    norm: Literal["each", "shared", "sum", "none"] = "each"
    """Where the root mean square is normed: each branch with weights of its own or with the same ones, their
    sum, or nothing."""
    join: Literal["sum", "split", "local"] = "sum"
    """``"sum"`` of the branches; ``"split"``: the first half of the heads has the local branch alone, the
    second the linear one; ``"local"``: the local branch alone, normed."""
    rope: Literal["local", "both"] = "local"
    """Which branches have rotary embedding."""
    gate: Literal["none", "state", "branch"] = "none"
    """``"state"``: the state decays by a learned gate of every token, that of Mamba2. ``"branch"``: a sigmoid
    of a linear map of the token, one number per head, multiplies the linear branch before the sum."""


class BranchAttention(SelfAttention):
    """A layer as `Branches` says."""

    def __init__(self, size: ModelSize, branches: Branches) -> None:
        mechanism = RAttention(branches.window or 0, rope_theta=size.rope_theta)
        super().__init__(
            size.dim,
            size.heads,
            size.kv_heads,
            mechanism=mechanism,
            causal=True,
            head_dim=size.head_dim,
            qk_norm=size.qk_norm,
        )
        self.branches = branches
        kv_heads = size.kv_heads or size.heads
        self.decay = Decay(size.dim, kv_heads) if branches.gate == "state" else None
        self.share = nn.Linear(size.dim, size.heads) if branches.gate == "branch" else None
        self._drop_unused_norms()

    def _drop_unused_norms(self) -> None:
        """Weights that no output depends on are not trained."""
        assert self.norms is not None
        unnormed = self.branches.norm == "none"
        self.norms.local_norm_weight.requires_grad_(not unnormed and self.branches.window is not None)
        own = self.branches.norm == "each" and self.branches.join != "local"
        self.norms.linear_norm_weight.requires_grad_(own)

    def _rule(self, x: Tensor) -> dict[str, Any]:
        gate = None if self.decay is None else self.decay(x)[1]
        share = None if self.share is None else self.share(x).sigmoid().mT[..., None]
        return {"gate": gate, "share": share}

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, rule: dict[str, Any], masks: dict[str, Any]
    ) -> Tensor:
        turned = rotary(query, key, theta=self.rope_theta)
        near = None
        if self.branches.window is not None:
            near = rt.attention(turned[0], turned[1], value, causal=True, window=self.branches.window)
            if self.branches.join == "local":
                return self._normed(near, "local")
        own, other = turned if self.branches.rope == "both" else (query, key)
        far = self._far(own, other, value, rule["gate"])
        if near is None:
            return far if self.branches.norm == "none" else self._normed(far, "linear")
        return self._joined(near, far, rule["share"])

    def _far(self, query: Tensor, key: Tensor, value: Tensor, gate: Tensor | None) -> Tensor:
        """The linear branch: everything before the window, or everything where there is no window."""
        window = -1 if self.branches.window is None else self.branches.window
        name = self.branches.feature_map
        if gate is None and name != "identity":
            return rt.residual_linear_attention(query, key, value, window=window, feature_map=name)
        if gate is None:
            gate = torch.zeros(key.shape[:3])
        features = None if name == "identity" else name
        return rt.gated_linear_attention(
            query, key, value, gate, window=window, feature_map=features, scale=1.0
        )

    def _joined(self, near: Tensor, far: Tensor, share: Tensor | None) -> Tensor:
        if self.branches.norm == "none":
            return near + far
        if self.branches.norm == "sum":
            return self._normed(near + far, "local")
        near = self._normed(near, "local")
        far = self._normed(far, "local" if self.branches.norm == "shared" else "linear")
        if self.branches.join == "split":
            half = near.shape[1] // 2
            return torch.cat([near[:, :half], far[:, half:]], dim=1)
        return near + (far if share is None else share.to(far.dtype) * far)

    def _normed(self, rows: Tensor, branch: str) -> Tensor:
        """The root mean square of each head's rows becomes 1, times the weights of the branch."""
        assert self.norms is not None
        weight = getattr(self.norms, f"{branch}_norm_weight").float()
        normed = nn.functional.rms_norm(rows.float(), rows.shape[3:], eps=EPS)
        made: Tensor = (normed * weight[:, None]).to(rows.dtype)
        return made
