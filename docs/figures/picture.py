"""Draw the picture of the README: `python docs/figures/picture.py` trains, records and writes iris.png beside it."""

import tempfile
from pathlib import Path

import torch

import trajtools as tt
from recorders.iris import load
from recorders.torch import Recorder, Twins


def record(path: Path, rate: float = 2.0, steps: int = 500) -> None:
    """Record the training of the README with its loss."""
    features, species = load()
    x, y = torch.from_numpy(features), torch.from_numpy(species)
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 32), torch.nn.Sigmoid(), torch.nn.Linear(32, 3)
    ).double()
    loss_fn = torch.nn.functional.cross_entropy
    twins = Twins(
        model,
        loss_fn,
        lambda parameters: torch.optim.SGD(parameters, lr=rate),
        members=8,
        seed=0,
    )
    with Recorder(path, twins, hparams={"lr": rate}):
        for _ in range(steps):
            twins.step(x, y)


def draw(path: Path, picture: Path) -> None:
    """Draw the loss, and below it the distance of each twin to the training, over the steps of the training."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with tt.open(path) as run:
        exponent = tt.twins(run).fit()
        figure, (above, below) = plt.subplots(
            2,
            1,
            figsize=(8, 4.6),
            sharex=True,
            height_ratios=(1, 2),
            layout="constrained",
        )
        loss = run.metrics["loss"][:, 0]
        above.semilogy(run.step, loss, color="0.25", linewidth=1)
        above.minorticks_off()
        above.set_yticks([0.2, 1, 4], ["0.2", "1", "4"])
        above.set_ylabel("loss")
        for member in range(1, run.n_members):
            distance = tt.distance(
                run.trajectory(0), run.trajectory(member), metric="l1"
            )
            planted = run.plantings["step"][run.plantings["member"] == member].tolist()
            for start, stop in zip(
                planted, [*planted[1:], run.step[-1] + 1], strict=True
            ):
                stretch = (run.step >= start) & (run.step < stop)
                below.semilogy(
                    run.step[stretch],
                    distance[stretch],
                    color="#c8553d",
                    linewidth=0.9,
                )
        below.set(
            xlabel="step of the training",
            ylabel="distance of each twin\nto the training",
        )
        low, high = exponent.interval
        title = f"{exponent.verdict}: {exponent.value:.2f} per step, 95% interval [{low:.2f}, {high:.2f}]"
        above.set_title(title, loc="left", fontsize=11)
        for axes in (above, below):
            axes.set_xlim(0, run.step[-1])
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "iris.h5"
        record(recording)
        draw(recording, Path(__file__).with_name("iris.png"))
