"""Search a learning rate and a momentum with Optuna, and prune trials whose training is chaotic.

    pip install optuna
    python examples/optuna_pruning.py --trials 30

A trial trains a small network on three spirals with twins, and looks ten times at the exponent so far. If the whole
interval lies above the limit, two trainings with these settings part within the time they have: the trial is pruned,
which saves the rest of its steps. The exponent of each trial is kept in its user attributes.
Optuna's own pruners look at the loss alone; both can be used together.
"""

import argparse

import numpy as np
import optuna
import torch
from torch import nn

from recorders.torch import Twins


def spirals(n: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in the plane on three spirals, and which spiral each is on."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    radius = rng.uniform(0.1, 1, n)
    angle = 4 * radius + 2 * np.pi * label / 3 + 0.15 * rng.standard_normal(n)
    return torch.from_numpy(np.c_[radius * np.cos(angle), radius * np.sin(angle)]), torch.from_numpy(label)


def objective(trial: optuna.Trial, steps: int, limit: float) -> float:
    """Train with the settings of a trial; returns the mean loss of the last tenth of the steps."""
    rate = trial.suggest_float("lr", 1e-2, 10, log=True)
    momentum = trial.suggest_float("momentum", 0.0, 0.95)
    x, y = spirals()
    torch.manual_seed(trial.number)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    twins = Twins(
        model,
        nn.functional.cross_entropy,
        lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum),
        members=2,
        seed=trial.number,
    )
    losses = []
    for step in range(1, steps + 1):
        batch = torch.randint(len(x), (64,))
        losses.append(float(twins.step(x[batch], y[batch])[0]))
        if step % (steps // 10) == 0:
            live = twins.live
            trial.report(float(np.mean(losses[-steps // 10 :])), step)
            trial.set_user_attr("exponent", live["twin_exponent"])
            if live["twin_exponent_low"] > limit or not np.isfinite(losses[-1]):
                raise optuna.TrialPruned
    return float(np.mean(losses[-steps // 10 :]))


def main() -> None:
    """Run the study and print its trials."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--steps", type=int, default=600, help="steps of a trial")
    parser.add_argument("--limit", type=float, default=0.1, help="largest exponent that goes on, per step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: objective(trial, options.steps, options.limit), n_trials=options.trials)
    print("trial    rate  momentum  steps  exponent    loss")
    for trial in study.trials:
        exponent, done = trial.user_attrs.get("exponent", np.nan), max(trial.intermediate_values, default=0)
        loss = f"{trial.value:.4f}" if trial.state == optuna.trial.TrialState.COMPLETE else "pruned"
        rate, momentum = trial.params["lr"], trial.params["momentum"]
        print(f"{trial.number:5} {rate:7.3f}  {momentum:8.2f}  {done:5}  {exponent:8.3f}  {loss}")
    pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
    saved = sum(options.steps - max(trial.intermediate_values) for trial in pruned) / (options.trials * options.steps)
    print(f"{len(pruned)} of {options.trials} trials pruned, which saved {saved:.0%} of the steps")
    if len(pruned) < options.trials:
        print(f"best loss {study.best_value:.4f} at {study.best_params}")


if __name__ == "__main__":
    main()
