"""P3: curvature from a gradient-ascent shadow, with one extra gradient per step, and a learning rate from it.

    python examples/shadow_hessian.py --out p3

After Sasdelli et al. (DICTA 2021), on the toy of Cohen et al. (2021): 20 points of the Chebyshev polynomial T4, a
1-100-1 tanh network, full-batch gradient descent at 0.4, float64. Needs PyTorch.
"""

from pathlib import Path

import numpy as np
import torch
from studies import Progress, options, recorded, table
from torch import nn

import trajtools as tt
from recorders.torch import CurvatureLR, Recorder, Shadow, sharpness

RATE, STEPS, EVERY = 0.4, (300, 3000, 11_000), 100
X = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
Y = 8 * X**4 - 8 * X**2 + 1
half_mse = lambda output, target: 0.5 * ((output - target) ** 2).mean()  # noqa: E731
FIXED, SHADOWED = (0.1, 0.2, 0.4, 0.8), (1.0, 1.8)


def network() -> nn.Module:
    """Xavier weights with a gain of 1.9, biases 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 100), nn.Tanh(), nn.Linear(100, 1, bias=False)).double()
    for layer in (model[0], model[2]):
        nn.init.xavier_uniform_(layer.weight, gain=1.9)
    nn.init.zeros_(model[0].bias)
    return model


def train(path: Path, steps: int) -> None:
    """Record every step, with the shadows' numbers, and those of Lanczos every 100 steps."""
    model = network()
    opt = torch.optim.SGD(model.parameters(), lr=RATE)
    shadow = Shadow(model, half_mse, opt, of="full")
    with Recorder(path, model, optimizer=opt, hparams={"lr": RATE}, quiet=True) as rec:
        for step in range(steps + 1):
            exact = sharpness(model, half_mse, X, Y, of="full").metrics if step % EVERY == 0 else {}
            opt.zero_grad()
            loss = shadow.backward(X, Y)
            rec.record(loss=loss, **shadow.metrics, **(exact or {"h_max_full": np.nan, "h_min_full": np.nan}))
            opt.step()


def race(steps: int) -> list[list[object]]:
    """Loss of fixed rates, a schedule and the rate from the shadow after the same number of gradients."""
    rows: list[list[object]] = []
    for name in (*FIXED, "cosine from 0.4", *(f"{c:g} / h_max" for c in SHADOWED)):
        model = network()
        c = 0.0 if isinstance(name, float) or "h_max" not in name else float(name.split()[0])
        opt = torch.optim.SGD(model.parameters(), lr=name if isinstance(name, float) else 0.1 if c else 0.4)
        shadow = Shadow(model, half_mse, directions=("reverse",), of="full") if c else None
        updates = steps // 2 if shadow else steps  # the shadow takes every second gradient
        schedule = CurvatureLR(opt, shadow, c=c, highest=2.0) if shadow else None
        if not c and not isinstance(name, float):
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, updates)
        for _ in range(updates):
            opt.zero_grad()
            _ = shadow.backward(X, Y) if shadow else half_mse(model(X), Y).backward()
            opt.step()
            if schedule:
                schedule.step()
        rows.append([name, steps, float(half_mse(model(X), Y).detach()), opt.param_groups[0]["lr"]])
    return rows


def main() -> None:
    """Train once, compare, and race."""
    chosen = options(__doc__)
    torch.set_num_threads(1)
    steps, path, say = STEPS[chosen.size], chosen.out / "chebyshev.h5", Progress().say
    if not recorded(path):
        train(path, steps)
    say(f"{steps} steps recorded")
    with tt.open(path) as run:
        found = tt.training.curvature(run)
        lanczos, shade = run.metrics["h_max_full"].ravel(), run.metrics["shadow_h_max_full"].ravel()
    at = np.flatnonzero(np.isfinite(lanczos))
    wanted = at[:: max(1, len(at) // 15)]
    rows = [[int(t), float(lanczos[t]), float(shade[t]), float(shade[t] / lanczos[t] - 1)] for t in wanted]
    table(["step", "Lanczos", "reverse shadow", "relative error"], rows, chosen.out / "shadow.md")
    print(*found.reasons, sep="\n")
    late = at[at >= 1000]
    if len(late):
        mean = float(lanczos[late].mean())
        print(f"mean sharpness from step 1000 on: {mean:.4f}, {mean * RATE / 2 - 1:+.1%} from 2 / rate = {2 / RATE:g}")
    rows = race(2 * steps)
    table(["rate", "gradients", "final loss", "last rate"], rows, chosen.out / "race.md")
    found.plot().figure.savefig(chosen.out / "curvature.png")


if __name__ == "__main__":
    main()
