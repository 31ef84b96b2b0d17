"""Every kind of data is trained, evaluated and sampled with every schedule, with the defaults that a person meets.

The quick test beside it is that of pure noise in tests/samplers/test_guidance.py.
"""

import json

import pytest
from conftest import succeeded

from registry.process_rows import SCHEDULES

TINY = "max_steps=2 warmup_steps=0 batch_size=16 eval_samples=100 references=0 num_timesteps=20"
KINDS = {
    "points with labels": "model.hidden=8 model.layers=1 num_samples=1000 conditional=true",
    "images": "dataset=digits model=unet_small model.channels=[8,8] model.blocks=1 threads=1",
    "images without labels": "dataset=digits model=unet_small model.channels=[8,8] threads=1 conditional=false",
}
PROCESSES = [f"schedule={name}" for name in SCHEDULES]
PROCESSES += [f"schedule={name} zero_snr=true" for name in SCHEDULES if name != "flow"]
FEWER = [*PROCESSES[: len(SCHEDULES)], "schedule=linear zero_snr=true"]
GUIDED = "guidance=1 guidance_interval=[0.2,2]"  # which points do not have by default


def tried(kind, process, folder):
    """Train and evaluate with one schedule, which samples; the metrics of the training."""
    run = f"{kind}_{process}".replace(" ", "_").replace("=", "_")
    succeeded(f"train.py {KINDS[kind]} {TINY} {process} task_name={run}", folder)
    if kind == "points with labels":  # the evaluation of a training samples with the defaults
        quick = "num_samples=20 figures=[] rerun=false animation=none"
        succeeded(f"inference.py checkpoint={run} {quick} {GUIDED}", folder)
    return json.loads((folder / run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all, so that the feature classifier of the digits is trained once."""
    return tmp_path_factory.mktemp("schedules")


# Guidance, which a process without signal can break, is a default of labelled images alone: they try every process.
TRIED = [(kind, process) for kind in KINDS for process in PROCESSES if kind == "images" or process in FEWER]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "process"), TRIED)
def test_every_default_works_with_every_schedule(kind, process, folder):
    assert tried(kind, process, folder)["steps"] == 2
