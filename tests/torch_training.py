"""A small torch training that the recorder's tests share, and how they read its file back."""

import numpy as np
import torch
from torch import nn

import trajtools as tt
from recorders.torch import Recorder


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Dropout(0.3), nn.Linear(9, 3)).to(dtype)


def batches(steps=12, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(steps, size, 6, generator=generator).to(dtype)
    return list(zip(x, torch.randint(0, 3, (steps, size), generator=generator), strict=True))


def flat(model):
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in model.parameters() if p.requires_grad])


def backward(model, x, y):
    loss = nn.functional.cross_entropy(model(x).float(), y)
    loss.backward()
    return loss


def opened(tmp_path, model, name="run", **options):
    return Recorder(tmp_path / f"{name}.h5", model, quiet=True, **options)


def read(tmp_path):
    with tt.open(tmp_path / "run.h5") as run:
        return run.states[:][:, 0], run.step.tolist(), dict(run.metrics)


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def train(model, optimizer, recorder=None, steps=12):
    torch.manual_seed(3)
    states, losses = [flat(model)], []
    for x, y in batches(steps):
        optimizer.zero_grad()
        loss = backward(model, x, y)
        if recorder:
            recorder.record(loss=loss)
        optimizer.step()
        losses.append(loss.item())
        states.append(flat(model))
    return np.stack(states), losses
