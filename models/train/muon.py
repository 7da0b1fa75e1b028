"""Muon (Keller Jordan, 2024): momentum whose matrices are made orthogonal before they are applied.

A small model learns to look things up in a third of the steps that AdamW takes; embeddings and gains stay with AdamW.
"""
import torch


def orthogonal(g, steps=5):
    """Newton-Schulz iteration of the fifth order, on a stack of matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=.02, momentum=.95, weight_decay=.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for shape, ps in by_shape.items():  # layers together: a few large products instead of many small ones
                g = torch.stack([p.grad for p in ps])
                m = self.state[ps[0]].setdefault("momentum", torch.zeros_like(g))
                m.lerp_(g, 1 - group["momentum"])
                u = orthogonal(g.lerp(m, group["momentum"])) * max(1, shape[0] / shape[1]) ** .5
                torch._foreach_mul_(ps, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(ps, [x.to(p.dtype) for x, p in zip(u.unbind(), ps)], alpha=-group["lr"])
