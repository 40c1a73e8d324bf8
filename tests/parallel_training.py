"""Trainings under DistributedDataParallel that test_ranks.py runs in two processes."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from recorders.torch import LoopTwins, Recorder

STEPS = 12


def flat(model):
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.2), nn.Linear(9, 3)).double()


def batches(rank, steps=STEPS):
    generator = torch.Generator().manual_seed(5 + rank)
    x = torch.randn(steps, 8, 6, generator=generator).double()
    return list(zip(x, torch.randint(0, 3, (steps, 8), generator=generator), strict=True))


def loop(folder, rank, name, accumulate=1, twins=None, **options):
    """A loop with accumulated batches; `twins` are the options of its twins, {} for none but a recorder."""
    model = nn.parallel.DistributedDataParallel(network())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    torch.manual_seed(rank)
    state = LoopTwins(model, optimizer, **twins) if twins else model
    by_hook = {} if twins else {"optimizer": optimizer}
    losses = []
    with Recorder(f"{folder}/{name}.h5", state, quiet=True, **by_hook, **options) as recorder:
        for i, (x, y) in enumerate(batches(rank, STEPS * accumulate)):
            is_last = i % accumulate == accumulate - 1

            def update(model, optimizer, x=x, y=y, is_last=is_last):
                model.require_backward_grad_sync = is_last  # what `no_sync` sets
                loss = nn.functional.cross_entropy(model(x), y)
                (loss / accumulate).backward()
                if is_last:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    optimizer.step()
                    optimizer.zero_grad()
                return loss

            if twins:
                losses.append(state.step(update)[0].item())
            else:
                loss = update(model, optimizer)
                losses.append(loss.item())
                if i == 0:
                    recorder.record(after=loss)
        counts = recorder.step, recorder.n_recorded, len(recorder.names), len(recorder.overhead) > 0
    copies = [flat(one) for one in state.models] if twins else [flat(model)]
    np.savez(f"{folder}/{name}.rank{rank}.npz", losses=losses, copies=copies, noise=torch.rand(3), counts=counts)


def lightning_fit(folder, rank, name, callbacks):
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses = network(), []

        def training_step(self, batch, i):
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    module = Classifier()
    trainer = lightning.Trainer(
        max_steps=STEPS // 2, accelerator="cpu", strategy="ddp", devices=2, num_nodes=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        accumulate_grad_batches=2, gradient_clip_val=0.5, callbacks=callbacks, use_distributed_sampler=False,
        precision="64-true",
    )  # fmt: skip
    torch.manual_seed(rank)
    trainer.fit(module, torch.utils.data.DataLoader(batches(rank), batch_size=None))
    np.savez(f"{folder}/{name}.rank{rank}.npz", losses=module.losses, copies=[flat(module)], noise=torch.rand(3))


def huggingface_train(folder, rank, name, callbacks):
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).double()
    rows = torch.tensor(np.random.default_rng(0).integers(0, 11, (48, 6)))
    arguments = transformers.TrainingArguments(
        output_dir=f"{folder}/{name}", max_steps=STEPS // 2, per_device_train_batch_size=4, learning_rate=0.01,
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, gradient_accumulation_steps=2, report_to=[],
        save_strategy="no", logging_steps=1, ddp_backend="gloo",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=[{"input_ids": row, "labels": row} for row in rows], callbacks=callbacks
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    np.savez(f"{folder}/{name}.rank{rank}.npz", losses=losses, copies=[flat(model)], noise=torch.rand(3))


def trainers(folder, rank, name, train, package):
    train(folder, rank, f"{name}-alone", [])
    for kind, options in {"RecorderCallback": {}, "TwinsCallback": {"epsilon": 0.0}}.items():
        callback = getattr(package, kind)(f"{folder}/{name}-{kind}.h5", quiet=True, **options)
        train(folder, rank, f"{name}-{kind}", [callback])


def main(kind, rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "test"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    if kind == "loops":
        loop(folder, rank, "alone")
        loop(folder, rank, "exact", twins={"epsilon": 0.0})
        loop(folder, rank, "accumulated", accumulate=3, twins={"epsilon": 0.0})
        loop(folder, rank, "planted", twins={"replant": 3, "members": 3}, every=2)
        try:
            LoopTwins(network(), torch.optim.SGD(network().parameters()))
        except Exception as error:
            print(error)
    elif kind == "lightning":
        from recorders import lightning

        trainers(folder, rank, "lightning", lightning_fit, lightning)
    else:
        from recorders import huggingface

        trainers(folder, rank, "huggingface", huggingface_train, huggingface)


if __name__ == "__main__":
    kind, rank, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    main(kind, rank, folder)
    sys.stdout.flush()
    Path(folder, f"done{rank}").touch()
    for _ in range(1200):  # neither leaves while the other may still wait for it
        if all(Path(folder, f"done{other}").exists() for other in (0, 1)):
            break
        time.sleep(0.05)
    os._exit(0)  # gloo's own threads sometimes abort the interpreter on its way out, when all is done
