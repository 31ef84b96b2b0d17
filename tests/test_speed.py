"""Speed as ratios against something measured in the same run: these figures hold on any machine."""

import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT

from dataset import Normaliser
from trained import Trained, build

CONFIG = {
    "schedule": "linear", "num_timesteps": 1000, "beta_start": None, "beta_end": None,
    "model": {"name": "mlp", "hidden": 112, "layers": 3, "frequencies": 3, "prediction": "v"},
}  # fmt: skip


def fastest(run, repeats=5):
    """CPU seconds of the quickest of several runs: what disturbs only ever adds."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_sampling_costs_at_most_twice_its_matrix_products(one_thread):
    net, scheduler = build(CONFIG, (2,))
    trained = Trained(net, scheduler, Normaliser(torch.zeros(2), torch.ones(2)), CONFIG)
    steps, rows = 20, 10_000

    def sampling():
        states = trained.sample(rows, 0, torch.device("cpu"))
        for _ in range(steps):
            next(states)

    layers = [net.inputs, *net.layers, net.outputs]
    inputs = [torch.randn(1000, layer.in_features) for layer in layers]

    @torch.no_grad()
    def products():
        for _ in range(steps * rows // 1000):
            for layer, x in zip(layers, inputs):
                torch.mm(x, layer.weight.T)

    ratio = fastest(sampling) / fastest(products)
    print(f"sampling / matrix products = {ratio:.2f}")
    assert ratio < 2


def test_main_starts_almost_as_quickly_as_what_it_imports(tmp_path):
    def wall(*words):
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
            times.append(time.perf_counter() - begin)
        return min(times)

    ratio = wall(str(ROOT / "main.py"), "--no-rerun") / wall("-c", "import torch, sklearn.datasets")
    print(f"main.py / its imports = {ratio:.2f}")
    assert ratio < 2
