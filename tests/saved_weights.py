"""Folders of checkpoints for the tests: every bit of a state follows from its step."""

import json
import struct

import numpy as np

STEPS = (100, 20, 3)
SHAPES = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8), "fc2.bias": (3,)}


def weights(step, dtype="float32", shapes=None):
    """Arrays by name, of any bit pattern: NaN with payloads, infinities and denormals are among them."""
    rng = np.random.default_rng([step, 1])
    size = np.dtype(dtype).itemsize
    made = {}
    for name, shape in (shapes or SHAPES).items():
        made[name] = np.frombuffer(rng.bytes(int(np.prod(shape)) * size), dtype).reshape(shape)
    return made


def save(path, arrays):
    """Save arrays as the ending of the path says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        import torch

        torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, path)


def assert_states(run, steps, made=weights, member=0):
    """The run holds exactly the saved weights, bit for bit."""
    assert run.status == "complete"
    np.testing.assert_array_equal(run.step, sorted(steps))
    for row, step in enumerate(sorted(steps)):
        arrays = made(step)
        for p in run.parameters:
            found = run.states[row, member, p.offset : p.offset + p.size].astype(p.dtype)
            assert p.shape == arrays[p.name].shape
            assert found.tobytes() == arrays[p.name].tobytes(), (step, p.name)


def save_bfloat16(path, bits):
    """Save the bits of bfloat16 numbers as the tensor ``w`` of a .safetensors file, written by hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"a": ("F32", [1], [bits.nbytes, bits.nbytes + 4]), "w": ("BF16", list(bits.shape), [0, bits.nbytes])}
    about = {name: {"dtype": d, "shape": s, "data_offsets": o} for name, (d, s, o) in tensors.items()}
    head = json.dumps(about).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bits.astype("<u2").tobytes() + b"abcd")


def folder_of(tmp_path, name="step_{}.npz", steps=STEPS, **options):
    """Make the folder ``saved`` with a checkpoint for each step."""
    for step in steps:
        save(tmp_path / "saved" / name.format(step), weights(step, **options))
    return tmp_path / "saved"


def assert_nothing_left(tmp_path):
    """A conversion that failed has left nothing beside the folder."""
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
