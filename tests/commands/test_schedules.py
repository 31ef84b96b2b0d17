"""Every kind of data is trained, evaluated and sampled with every schedule, with the defaults that a person meets.

The quick test beside it is that of pure noise in tests/samplers/test_guidance.py.
"""

import pytest

import train
from conf.flags import to_overrides
from conf.store import checked, composed
from pipeline import Pipeline
from registry.process_rows import SCHEDULES
from samplers.options import SamplingOptions

TINY = "max_steps=2 warmup_steps=0 batch_size=16 eval_samples=100 references=0 num_timesteps=20"
KINDS = {
    "points with labels": "dataset=gaussians model.hidden=8 model.layers=1 num_samples=1000 conditional=true",
    "images": "dataset=digits model=unet_small model.channels=[8,8] model.blocks=1 threads=1",
    "images without labels": "dataset=digits model=unet_small model.channels=[8,8] threads=1 conditional=false",
}
PROCESSES = [f"schedule={name}" for name in SCHEDULES]
PROCESSES += [f"schedule={name} zero_snr=true" for name in SCHEDULES if name != "flow"]
FEWER = [*PROCESSES[: len(SCHEDULES)], "schedule=linear zero_snr=true"]
GUIDED = SamplingOptions(guidance=1.0, guidance_interval=[0.2, 2.0])  # which points do not have by default


def tried(kind, process, folder):
    """Train and evaluate with one schedule, as the command does but in this process; the metrics of the training."""
    run = folder / f"{kind}_{process}"
    run.mkdir()
    words = f"{KINDS[kind]} {TINY} {process}".split()
    metrics = train.begin_or_resume(checked(composed("train", to_overrides(words))), run, set())
    if kind == "points with labels":  # the evaluation of a training samples with the defaults
        pipeline = Pipeline.load(run, "cpu")
        assert bool(pipeline.sample(20, GUIDED).isfinite().all())
    return metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all, so that the feature classifier of the digits is trained once."""
    folder = tmp_path_factory.mktemp("schedules")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


# Guidance, which a process without signal can break, is a default of labelled images alone: they try every process.
TRIED = [(kind, process) for kind in KINDS for process in PROCESSES if kind == "images" or process in FEWER]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "process"), TRIED)
def test_every_default_works_with_every_schedule(kind, process, folder):
    assert tried(kind, process, folder)["steps"] == 2
