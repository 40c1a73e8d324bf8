"""Fits of Keras models, recorded and not; test_keras.py runs this file once for each backend."""

import contextlib
import json
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from recorders.keras import RecorderCallback

FOLDER = Path(sys.argv[1])
X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = X.sum(axis=1, keepdims=True)


class Snapshots(keras.callbacks.Callback):
    """What the test itself sees of a fit."""

    def __init__(self):
        super().__init__()
        self.states, self.losses = [], []

    def see(self):
        arrays = [keras.ops.convert_to_numpy(v).ravel() for v in self.model.trainable_variables]
        self.states.append(np.concatenate(arrays))

    def on_train_begin(self, logs=None):
        self.see()

    def on_train_batch_end(self, batch, logs=None):
        self.see()
        self.losses.append(float(logs["loss"]))


def network(built=True, **options):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(4, activation="tanh", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(1, name="out"),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers] if built else layers, name="net")
    model.compile(keras.optimizers.Adam(0.01, name="adam", **options), "mse", metrics=["mae"])
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, shuffle=True, callbacks=list(callbacks), **options)


plain, seen = network(), Snapshots()
plain_log = fit(plain, validation_data=(X, Y)).history
recorded = network()
log = fit(
    recorded, seen, RecorderCallback(FOLDER / "run.h5", buffers=True, model_buffers=True), validation_data=(X, Y)
).history
np.save(FOLDER / "states.npy", seen.states)

fit(network(gradient_accumulation_steps=2), RecorderCallback(FOLDER / "accumulated.h5"))
again = network()
callback = RecorderCallback(FOLDER / "resumed.h5", resume=True)
fit(again, callback)
fit(again, callback)  # iterations go on

model = network()
with RecorderCallback(FOLDER / "stopped.h5") as stopped:
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: 1 / 0 if batch == 2 else None)
    with contextlib.suppress(ZeroDivisionError):
        fit(model, stopped, stop)

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    late = network(built=False)
    fit(late, RecorderCallback(FOLDER / "late.h5"), epochs=1)

print(
    json.dumps(
        {
            "same": all((a == b).all() for a, b in zip(plain.get_weights(), recorded.get_weights(), strict=True)),
            "same_log": plain_log == log,
            "log": log,
            "losses": seen.losses,
            "warnings": [str(one.message) for one in caught if one.category.__name__ == "RecordingWarning"],
        }
    )
)
