"""Networks and losses that the tests of torch's probes share."""

import numpy as np
import torch
from torch import nn

from recorders.torch import Shadow

torch.set_num_threads(1)
FULL = torch.float64


def half_mse(output, target):
    return 0.5 * ((output - target) ** 2).mean()


def itself(output):
    """A loss function for models whose output is the loss."""
    return output


def small(seed=0):
    """A 4-5-3 tanh network; `naive_probes.gradient` is its gradient by hand."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(FULL)


def data(n=20, seed=1):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.standard_normal((n, 4))), torch.tensor(rng.standard_normal((n, 3)))


def flat(model):
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]).astype(float)


class Quadratic(nn.Module):
    """0.5 sum h w^2; call it on a factor of the loss."""

    def __init__(self, h, start=1.0):
        super().__init__()
        self.h = torch.tensor(h, dtype=FULL)
        self.w = nn.Parameter(torch.full((len(h),), start, dtype=FULL))

    def forward(self, factor):
        return factor * 0.5 * (self.h * self.w**2).sum()


class Quartic(nn.Module):
    """w^4 / 4 - w^2 / 2 for each weight: gradient descent at eta = 2 is Chebyshev's cubic map, exponent ln 3."""

    def __init__(self, start=(0.3,)):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=FULL))

    def forward(self, factor):
        return factor * (self.w**4 / 4 - self.w**2 / 2).sum()


ONE = torch.ones((), dtype=FULL)


class Noisy(nn.Module):
    """Dropout, batch normalisation, attention and a frozen layer: everything that a probe could disturb."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.into = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.4)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.drop(torch.tanh(self.norm(self.into(x))))
        mixed, _ = self.attention(hidden[None], hidden[None], hidden[None], need_weights=False)
        return self.out(self.frozen(mixed[0]))


def chebyshev():
    """The toy of the edge of stability: 1-100-1, Chebyshev's fourth polynomial on 20 points (Cohen et al. 2021)."""
    model = nn.Sequential(nn.Linear(1, 100), nn.Tanh(), nn.Linear(100, 1, bias=False)).to(FULL)
    torch.manual_seed(0)
    nn.init.xavier_normal_(model[0].weight, gain=1.9)
    nn.init.xavier_normal_(model[2].weight)
    nn.init.zeros_(model[0].bias)
    x = torch.linspace(-1, 1, 20, dtype=FULL)[:, None]
    return model, x, 8 * x**4 - 8 * x**2 + 1


def follow(model, opt, steps, loss_fn=itself, batch=(ONE,), **options):
    """A shadow beside a training, and the growth that it told of at every step."""
    shadow = Shadow(model, loss_fn, opt, of="full", **options)
    growth = []
    for _ in range(steps):
        opt.zero_grad()
        shadow.backward(*batch)
        opt.step()
        growth.append(shadow.growth)
    return shadow, np.array(growth)
