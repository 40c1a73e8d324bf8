"""P5: the spread of a perturbed cloud for each activation and seed, compared with the true exponent.

    python examples/activation_choice.py --out p5

After Mittra (arXiv 2410.05988): XOR, networks 2-2-1 with 9 weights from U[0, 1), initial loss between 0.2 and 0.4,
full-batch gradient descent at 0.001, clouds of 24 copies with N(0, 1e-4). L1 and L2 are the paper's statistics; beside
them the mean curvature -eta tr(H) / 9 and the leading exponent -eta h_min, from the exact Hessian at the start.
"""

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from studies import options, table

import trajtools as tt

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([0.0, 1.0, 1.0, 0.0])
RATE, EPOCHS, COPIES, SPREAD, SEEDS = 1e-3, 5, 24, 1e-4, (12, 300, 10_000)
ACTIVATIONS = {
    "linear": (lambda z: z, lambda z, a: np.ones_like(z)),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z, a: a * (1 - a)),
    "ReLU": (lambda z: np.maximum(z, 0), lambda z, a: (z > 0).astype(float)),
}


def loss_and_gradient(theta: np.ndarray, activation: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of networks (m, 9), hidden and output activated alike, and its gradient (m, 9)."""
    act, slope = ACTIVATIONS[activation]
    hidden, bias, out, last = theta[:, :4].reshape(-1, 2, 2), theta[:, 4:6], theta[:, 6:8], theta[:, 8]
    z = X @ hidden + bias[:, None]
    a = act(z)
    y = (a @ out[:, :, None])[:, :, 0] + last[:, None]
    found = act(y)
    error = 2 * (found - Y) * slope(y, found) / 4
    back = error[:, :, None] * out[:, None] * slope(z, a)
    parts = [np.matmul(X.T, back).reshape(-1, 4), back.sum(1), (error[:, None] @ a)[:, 0], error.sum(1)[:, None]]
    return ((found - Y) ** 2).mean(1), np.concatenate(parts, axis=1)


def start(activation: str, seed: int) -> np.ndarray:
    """Weights whose loss lies between 0.2 and 0.4."""
    rng = np.random.default_rng(seed)
    while True:
        theta = rng.uniform(0, 1, (1, 9))
        if 0.2 <= loss_and_gradient(theta, activation)[0][0] <= 0.4:
            return theta[0]


def cloud(theta: np.ndarray, activation: str, seed: int) -> tuple[np.ndarray, float]:
    """Trajectories of a network and its copies, (epochs + 1, 25, 9), and the loss at the end."""
    away = np.random.default_rng([seed, 1]).standard_normal((COPIES, 9))
    states = [np.vstack([theta, theta + SPREAD * away])]
    for _ in range(EPOCHS):
        states.append(states[-1] - RATE * loss_and_gradient(states[-1], activation)[1])
    return np.stack(states), float(loss_and_gradient(states[-1][:1], activation)[0][0])


def hessian(theta: np.ndarray, activation: str, step: float = 1e-5) -> np.ndarray:
    """Central differences of the exact gradient."""
    up, down = (loss_and_gradient(theta + sign * step * np.eye(9), activation)[1] for sign in (1, -1))
    return (up - down + (up - down).T) / (4 * step)


def main() -> None:
    """Measure every seed of every activation."""
    chosen, rows, figure = options(__doc__), [], Figure((12, 4), layout="constrained")
    for place, activation in enumerate(ACTIVATIONS, 1):
        starts = [start(activation, seed) for seed in range(SEEDS[chosen.size])]
        clouds = [cloud(theta, activation, seed) for seed, theta in enumerate(starts)]
        pairs = [(path[:, 0], list(np.moveaxis(path[:, 1:], 1, 0))) for path, _ in clouds]
        published = tt.hybrid(pairs, metric="l2", procedure="mittra2024").settings
        curvature = np.array([np.linalg.eigvalsh(hessian(theta, activation)) for theta in starts])
        first = np.array([loss_and_gradient(theta[None], activation)[0][0] for theta in starts])
        last = np.array([loss for _, loss in clouds])
        columns = {
            "L1": np.array(published["L1"]),
            "L2": np.array(published["L2"]),
            "-eta tr(H) / 9": -RATE * curvature.mean(axis=1),
            "leading exponent": np.log(np.abs(1 - RATE * curvature)).max(axis=1),
            "initial loss": first,
        }
        for name, values in columns.items():
            rho, p = spearmanr(values, last)
            like = float(np.corrcoef(values, columns["-eta tr(H) / 9"])[0, 1])
            spread = f"{np.quantile(values, 0.025):.3g} to {np.quantile(values, 0.975):.3g}"
            rows.append([activation, name, float(values.mean()), spread, float(rho), f"{p:.2g}", like])
        ax = figure.add_subplot(1, 3, place)
        for name in ("L2", "leading exponent"):
            ax.plot(columns["-eta tr(H) / 9"], columns[name], ".", label=name)
        ax.set(title=activation, xlabel="-eta tr(H) / 9", ylabel="per step")
        ax.legend(fontsize="small")
    head = ["activation", "statistic", "mean", "95 % of seeds", "rank r with final loss", "p", "r with tr(H)"]
    table(head, rows, chosen.out / "xor.md")
    figure.savefig(chosen.out / "xor.png")


if __name__ == "__main__":
    main()
