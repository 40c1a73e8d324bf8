"""Trainings with twins that test_killed_trainings.py kills, resumes from a checkpoint, and analyses.

python killed_training.py lightning|huggingface FOLDER KILL_AT      # 0: resume from the newest checkpoint
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from digits_training import lightning_fit

STEPS = {"lightning": 400, "huggingface": 300}
SAVE = 40


def die(step, kill_at):
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def newest(folder, pattern):
    return str(max(folder.glob(pattern), key=lambda path: int("".join(filter(str.isdigit, path.stem)))))


def lightning(folder, kill_at):
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger

    from recorders.lightning import TwinsCallback

    class Killer(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            die(trainer.global_step, kill_at)

    twins = TwinsCallback(folder / "run.h5", members=4, resume=not kill_at)
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=SAVE, save_top_k=-1)
    lightning_fit(
        4.0, 0, [twins, saver, Killer()], logger=TensorBoardLogger(folder / "board"), log_every_n_steps=10,
        enable_checkpointing=True, resume=None if kill_at else newest(folder, "step=*.ckpt"),
    )  # fmt: skip


def huggingface(folder, kill_at):
    import transformers

    from recorders.huggingface import TwinsCallback

    class Killer(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            die(state.global_step, kill_at)

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    rows = torch.tensor(np.random.default_rng(0).integers(0, 11, (48, 6)))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "board")
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS["huggingface"], per_device_train_batch_size=16, learning_rate=0.1,
        lr_scheduler_type="constant", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, save_steps=SAVE,
        logging_steps=10, report_to=["tensorboard"],
    )  # fmt: skip
    trainer = transformers.Trainer(
        transformers.GPT2LMHeadModel(config).double(), arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        callbacks=[TwinsCallback(folder / "run.h5", members=4, resume=not kill_at), Killer()],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=None if kill_at else newest(folder, "checkpoint-*"))


if __name__ == "__main__":
    {"lightning": lightning, "huggingface": huggingface}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
