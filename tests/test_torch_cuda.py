"""States that live on a CUDA device: read on a stream of their own, before the next step overwrites them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_training import OPTIMISERS, backward, batches, flat, network, opened, read  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.recorders,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

nn = torch.nn


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_on_cuda_are_read_before_the_next_step_overwrites_them(tmp_path, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)).to("cuda", dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(64, 2048, device="cuda", dtype=dtype)
    expected = [torch.cat([p.detach().ravel() for p in model.parameters()])]
    with opened(tmp_path, model, optimizer=optimizer):
        for _ in range(20):
            optimizer.zero_grad()
            model(x).float().square().mean().backward()
            optimizer.step()
            expected.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
    stored = read(tmp_path)[0]
    np.testing.assert_array_equal(stored.astype(np.float32), torch.stack(expected).float().cpu().numpy())


def test_training_on_cuda_is_bit_identical_with_and_without_a_recorder(tmp_path):
    results = []
    for recorded in (False, True):
        model = network().cuda()
        optimizer = OPTIMISERS["sgd"](model.parameters())
        recorder = opened(tmp_path, model, optimizer=optimizer) if recorded else None
        torch.cuda.manual_seed(3)
        for x, y in batches(12):
            optimizer.zero_grad()
            backward(model, x.cuda(), y.cuda())
            optimizer.step()
        if recorder:
            recorder.close()
        results.append((flat(model), torch.cuda.get_rng_state().tolist()))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
