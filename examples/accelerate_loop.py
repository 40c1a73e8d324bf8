"""Record a loop of accelerate with twins: the loop's own step, made for the model and for perturbed copies of it.

    python examples/accelerate_loop.py --out transformer.h5 --steps 300 --rate 0.003

A small transformer with dropout learns to continue periodic sequences. Its step is a function of the model and the
optimiser, so that `LoopTwins` can make it for the copies as well, on the same batch and with the same dropout masks.
The schedule stays outside: copies follow the rates of the loop's optimiser.
"""

import argparse

import torch
from accelerate import Accelerator
from torch import nn

import trajtools as tt
from recorders.torch import LoopTwins, Recorder

LETTERS = 12


class Transformer(nn.Module):
    """Next-letter predictions for sequences of at most 16 letters."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(LETTERS, 32), nn.Embedding(16, 32)
        self.block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, LETTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (batch, length, letters)."""
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=self.head.weight.dtype)
        return self.head(self.block(self.letters(x) + self.places(torch.arange(length)), src_mask=mask))


def sequences(n: int) -> torch.Tensor:
    """Periodic sequences of 16 letters, shape (n, 16)."""
    motifs, periods = torch.randint(LETTERS, (n, 5)), torch.randint(2, 6, (n, 1))
    return motifs.gather(1, torch.arange(16) % periods)


def main() -> None:
    """Train, record, analyse."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="transformer.h5", help="file to be written; it must not exist")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.003, help="learning rate of AdamW at the start")
    options = parser.parse_args()
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    model = Transformer().double()  # room for twins to grow; float32 leaves about 12 e-folds
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=options.rate))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    twins = LoopTwins(model, optimizer, members=2, seed=1)
    with Recorder(options.out, twins, hparams={"lr": options.rate}, progress=True) as rec:
        for _ in range(options.steps):
            x = sequences(16)

            def update(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor = x) -> torch.Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                return loss

            twins.step(update)
            schedule.step()
        print({name: f"{value:.3g}" for name, value in rec.live.items()})
    with tt.open(options.out) as run:
        print(tt.twins(run).fit())


if __name__ == "__main__":
    main()
