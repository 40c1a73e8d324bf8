"""Loops of other packages, recorded: each trained once without the recorder and once with it, and compared bit for bit.

Run it with the names of loops (none: all that are installed); it prints a line for each. What recording adds to a loop
stands between the marks ``# recorded:`` and ``# end``.
"""

import argparse
import contextlib
import importlib.util
import inspect
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import trajtools as tt
from recorders import Recorder as AnyRecorder
from recorders.torch import Recorder

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True).sin()


class Seen:
    """Snapshots of the weights, after each update, by a hook of our own."""

    def __init__(self, model, optimizer):
        self.model, self.states = model, []
        self.start = self.flat()
        optimizer.register_step_post_hook(lambda *_: self.states.append(self.flat()))

    def flat(self):
        parts = [p.detach().float().numpy().ravel() for p in self.model.parameters() if p.requires_grad]
        return np.concatenate(parts)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))


def train(path, model, optimizer, step, n=12):
    seen = Seen(model, optimizer)
    torch.manual_seed(1)
    with contextlib.ExitStack() as stack:
        record = ignore
        if path:  # recorded:
            record = stack.enter_context(Recorder(path, model, optimizer=optimizer, quiet=True)).record
            # end
        for _ in range(n):
            step(record)
    return [seen.start, *seen.states]


def ignore(**metrics):
    """What records nothing."""


def compiled(path):
    """torch.compile, of the model and of its step."""
    model = network()
    fast = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(record):
        optimizer.zero_grad()
        loss = (fast(X) - Y).square().mean()
        loss.backward()
        record(loss=loss)  # recorded:
        # end
        optimizer.step()

    return train(path, model, optimizer, step)


def mixed(path):
    """bfloat16 autocast and a GradScaler, one of whose steps is skipped."""
    model = network()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=4.0)
    count = iter(range(100))

    def step(record):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(X) - Y).square().mean()
        scaler.scale(loss * (np.inf if next(count) == 3 else 1)).backward()
        record(loss=loss)  # recorded:
        # end
        scaler.step(optimizer)
        scaler.update()

    return train(path, model, optimizer, step)


def lbfgs(path):
    """LBFGS: one state for each call of step, with all its inner iterations."""
    model = network().eval()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = (model(X) - Y).square().mean()
        loss.backward()
        return loss

    def step(record):
        optimizer.step(closure)  # returns the loss before the update, which has passed now

    return train(path, model, optimizer, step)


def lora(path):
    """Adapters of peft: they are the state, and the frozen network is not."""
    import peft

    torch.manual_seed(0)
    model = peft.get_peft_model(network(), peft.LoraConfig(r=2, target_modules=["0", "3"]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)

    def step(record):
        optimizer.zero_grad()
        loss = (model(X) - Y).square().mean()
        loss.backward()
        record(loss=loss)  # recorded:
        # end
        optimizer.step()

    return train(path, model, optimizer, step)


def ema(path):
    """An average of the weights, the second member of the run."""
    model = network()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer, states = torch.optim.SGD(model.parameters(), lr=0.1), []
    torch.manual_seed(1)
    with contextlib.ExitStack() as stack:
        rec = None
        if path:  # recorded:
            rec = stack.enter_context(Recorder(path, [model, average.module], quiet=True))
            # end
        for step in range(12):
            states.append(np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]))
            optimizer.zero_grad()
            (model(X) - Y).square().mean().backward()
            optimizer.step()
            average.update_parameters(model)
            if rec:  # recorded:
                rec.record([model, average.module], step=step + 1)
                # end
    return [*states, np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])]


def skorch(path):
    """A skorch net whose callback opens the recorder, and whose loss is recorded where it is computed."""
    import skorch
    from skorch.callbacks import Callback

    kept = {}

    class Record(Callback):
        def on_train_begin(self, net, **_):
            kept["seen"] = Seen(net.module_, net.optimizer_)
            if path:  # recorded:
                net.rec = Recorder(path, net.module_, optimizer=net.optimizer_, quiet=True)
                # end

        def on_train_end(self, net, **_):
            if path:  # recorded:
                net.rec.close()
                # end

    class Net(skorch.NeuralNetRegressor):
        def get_loss(self, *args, training=False, **more):
            loss = super().get_loss(*args, training=training, **more)
            if path and training:  # recorded:
                self.rec.record(loss=loss)
                # end
            return loss

    torch.manual_seed(0)
    net = Net(network, max_epochs=3, batch_size=16, lr=0.1, verbose=0, train_split=None, callbacks=[Record()])
    net.fit(X.numpy(), Y.numpy())
    return [kept["seen"].start, *kept["seen"].states]


def partial_fit(path):
    """scikit-learn's partial_fit: one batch a call, the state as plain arrays."""
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(hidden_layer_sizes=(8,), solver="adam", batch_size=16, random_state=0)

    def state():
        weights = {f"W{i}": w for i, w in enumerate(model.coefs_)}
        return {**weights, **{f"b{i}": b for i, b in enumerate(model.intercepts_)}}

    def batch(i):
        part = slice(16 * (i % 4), 16 * (i % 4) + 16)
        model.partial_fit(X.numpy()[part].astype(float), Y.numpy()[part, 0].astype(float))

    batch(0)  # makes the weights
    states = [np.concatenate([a.ravel() for a in state().values()])]
    with contextlib.ExitStack() as stack:
        rec = None
        if path:  # recorded:
            rec = stack.enter_context(AnyRecorder(path, state(), step=1, quiet=True))
            # end
        for i in range(1, 12):
            batch(i)
            if rec:  # recorded:
                rec.record(loss=model.loss_)  # of the batch before its update
                rec.advance(state())
                # end
            states.append(np.concatenate([a.ravel() for a in state().values()]))
    return states


def stable_baselines(path):
    """stable-baselines3: the policy of an A2C agent, by the steps of its optimiser."""
    from stable_baselines3 import A2C

    agent = A2C("MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    seen = Seen(agent.policy, agent.policy.optimizer)
    with contextlib.ExitStack() as stack:
        if path:  # recorded:
            stack.enter_context(Recorder(path, agent.policy, optimizer=agent.policy.optimizer, quiet=True))
            # end
        agent.learn(60)
    return [seen.start, *seen.states]


LOOPS = {
    "compiled": (compiled, "torch"),
    "mixed": (mixed, "torch"),
    "lbfgs": (lbfgs, "torch"),
    "ema": (ema, "torch"),
    "lora": (lora, "peft"),
    "skorch": (skorch, "skorch"),
    "partial_fit": (partial_fit, "sklearn"),
    "stable_baselines": (stable_baselines, "stable_baselines3"),
}


def lines_added(loop):
    """Lines between the marks, the condition that switches recording on not counted."""
    source = inspect.getsource(loop)
    source += inspect.getsource(train) if "return train(" in source else ""
    blocks = re.findall(r"^ *(if path|if rec)?[^\n]*# recorded:(.*?)# end", source, flags=re.S | re.M)
    return sum(max(1, block.count("\n") - 1) for _, block in blocks)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loops", nargs="*", help=f"of {', '.join(LOOPS)}")
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp())
    for name in chosen.loops or LOOPS:
        loop, package = LOOPS[name]
        if importlib.util.find_spec(package) is None:
            print(f"{name}: {package} is not installed")
            continue
        plain, recorded = loop(None), loop(folder / f"{name}.h5")
        same = np.array_equal(plain[-1], recorded[-1])
        with tt.open(folder / f"{name}.h5") as run:
            stored = len(recorded) == run.n_states and np.array_equal(run.states[:, 0], recorded)
            steps = f"{run.step[0]} to {run.step[-1]}"
        print(f"{name}: {lines_added(loop)} lines, same training {same}, same states {stored}, steps {steps}")


if __name__ == "__main__":
    main()
