"""A training that test_shards_torch.py runs whole in its own process, and sharded over two others."""

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import nn

from recorders.torch import LoopTwins, Recorder, perturb

WHAT = {
    "weights": {"store": "weights", "buffers": True},
    "l1": {"store": "distances", "metric": "l1"},
    "l2": {"store": "distances", "metric": "l2"},
    "linf": {"store": "distances", "metric": "linf"},
    "sketch": {"store": "sketch"},
}


def network():
    torch.manual_seed(0)
    # Three rows over two ranks are uneven; of the last layer only one rank holds something.
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))


def train(path, shard=lambda network: network, steps=5, **options):
    reference = network()
    networks = [reference, *perturb(reference, 1e-2, 2, seed=0)]
    for one in networks:
        shard(one)
    optimizers = [torch.optim.Adam(one.parameters(), lr=0.01) for one in networks]
    torch.manual_seed(1)
    x, y = torch.randn(20, 5), torch.randn(20, 1)
    with Recorder(path, networks, optimizer=optimizers, quiet=True, **options) as recorder:
        for _ in range(steps):
            for one, optimizer in zip(networks, optimizers, strict=True):
                optimizer.zero_grad()
                loss = (one(x) - y).square().mean()
                loss.backward()
                if one is reference:
                    recorder.record(loss=loss)
                optimizer.step()
    return networks


def rank(number, folder):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,), mesh_dim_names=("dp",))

    def shard(one):
        for layer in one:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(one, mesh=mesh)

    for name, options in WHAT.items():
        train(f"{folder}/{name}.h5", shard, **options)
    train(f"{folder}/weights.h5", shard, mode="next", store="weights")

    # Columns, copies, and a tensor that is no DTensor.
    torch.manual_seed(2)
    whole = {"columns": torch.randn(3, 5), "copies": torch.randn(4), "plain": torch.randn(2)}
    state = {
        "columns": distribute_tensor(whole["columns"], mesh, [Shard(1)]),
        "copies": distribute_tensor(whole["copies"], mesh, [Replicate()]),
        "plain": whole["plain"].clone(),
    }
    with Recorder(f"{folder}/tensors.h5", state, quiet=True) as recorder:
        for _ in range(3):
            with torch.no_grad():
                for value in state.values():
                    value.mul_(2)
            recorder.record(state, rank=float(number))
    with Recorder(f"{folder}/tensors.h5", state, resume=True, quiet=True) as recorder:
        for value in state.values():
            value.mul_(2)
        recorder.record(state)

    # The second rank holds copies only.
    copies = dist.device_mesh.init_device_mesh("cpu", (2, 1), mesh_dim_names=("copy", "dp"))
    one = network()
    fully_shard(one, mesh=copies)
    assert isinstance(one[0].weight, DTensor)
    with Recorder(f"{folder}/copies.h5", one, quiet=True) as recorder:
        recorder.record(loss=0.5)
    print(type(recorder).__name__)

    # One rank cannot open its file: none records.
    if number == 1:
        open(f"{folder}/taken.rank1.h5", "w").close()
    try:
        Recorder(f"{folder}/taken.h5", state, quiet=True)
    except Exception as error:
        print(type(error).__name__, str(error).replace("\n", " "))

    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    try:
        LoopTwins(one, optimizer, epsilon=1e-3)
    except Exception as error:
        print("LoopTwins", type(error).__name__, str(error).replace("\n", " "))


if __name__ == "__main__":
    number, folder = int(sys.argv[1]), sys.argv[2]
    rank(number, folder)
    sys.stdout.flush()
    open(f"{folder}/done{number}", "w").close()
    for _ in range(600):  # neither leaves while the other may still wait for it
        if all(os.path.exists(f"{folder}/done{other}") for other in (0, 1)):
            break
        time.sleep(0.05)
    os._exit(0)  # gloo's own threads sometimes abort the interpreter on its way out, when all is done
