"""A folder of diffusers is sampled as diffusers itself samples it, and a folder that cannot be used is refused in one
sentence.

In float64, with alpha-bar in float64 on both sides, the states may differ by 1e-10; we saw 5e-13. As diffusers computes
them, in float32, images may differ by 1e-5 in its own units, 0 .. 1. See tests/samplers/test_against_diffusers.py.
"""

import json
import shutil
import struct
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, command, succeeded
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

from diffusion import check_target
from pipeline import Pipeline
from samplers.ancestral import ddim, ddpm
from samplers.options import SamplingOptions
from viz.network_parts import trained_parts
from viz.pages.explorable.page_contents import check_can_be_shared

# diffusers converts tensors by an interface that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
SCHEDULES = {
    "linear": {},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "own betas": {"trained_betas": (np.linspace(1e-4, 0.02, 1000) ** 1.2).tolist()},
    "zero signal at the end": {"rescale_betas_zero_snr": True},
}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
LABELS = torch.tensor([0, 1, 2, 1])


def unet(**options):
    """A small UNet2DModel of random weights."""
    torch.manual_seed(0)
    return UNet2DModel(**SMALL | options).eval()


def saved(folder, net, scheduler):
    """A bare folder: the files of network and scheduler beside each other."""
    net.save_pretrained(folder)
    scheduler.save_pretrained(folder)
    return folder


def loaded(folder):
    return Pipeline.load(folder, "cpu", "fp32")


def x_T(dtype=torch.float32):
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3)).to(dtype)


@torch.no_grad()
def their_states(net, scheduler, labels=None, **options):
    """The states of the loop of diffusers' pipelines, from x_T on, in float64."""
    states = [x_T(torch.float64)]
    for t in scheduler.timesteps:
        output = net(states[-1], t, labels).sample
        states.append(scheduler.step(output, t, states[-1], **options).prev_sample)
    return torch.stack(states)


def our_states(pipeline, sampler, labels=None, **options):
    denoise = pipeline.denoiser()
    states = sampler(lambda x_t, t: denoise(x_t, t, labels), pipeline.scheduler, x_T(torch.float64), **options)
    return torch.stack([state.x_t for state in states])


# ---------------------------------------------------------------- equal to diffusers


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("clip", "labels"), [(False, None), (True, None), (True, LABELS)], ids=["", "clip", "labels"])
def test_ddim_gives_the_states_of_diffusers(tmp_path, schedule, prediction, clip, labels):
    if schedule == "zero signal at the end" and prediction == "epsilon":
        return  # refused: see test_noise_is_not_predicted_where_no_signal_is_left
    net = unet(num_class_embeds=None if labels is None else 3)
    theirs = DDIMScheduler(prediction_type=prediction, clip_sample=clip, **SCHEDULES[schedule])
    pipeline = loaded(saved(tmp_path, net, theirs))
    assert pipeline.classes == ([] if labels is None else ["0", "1", "2"])

    pipeline.net.double()
    theirs.alphas_cumprod = pipeline.scheduler.signal
    theirs.set_timesteps(10)
    expected = their_states(net.double(), theirs, labels, eta=0.0, use_clipped_model_output=clip)
    timesteps = theirs.timesteps.tolist()
    found = our_states(pipeline, ddim, labels, timesteps=timesteps)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_gives_the_states_of_diffusers(tmp_path, variance):
    net = unet()
    theirs = DDPMScheduler(num_train_timesteps=50, beta_end=0.2, variance_type=variance)
    pipeline = loaded(saved(tmp_path, net, theirs))
    pipeline.net.double()
    theirs.alphas_cumprod = pipeline.scheduler.signal
    theirs.betas = pipeline.scheduler.betas
    theirs.alphas = 1 - theirs.betas
    expected = their_states(net.double(), theirs, generator=torch.Generator().manual_seed(5))
    noise = torch.Generator().manual_seed(5)
    found = our_states(pipeline, ddpm, generator=noise, variance=variance)
    assert torch.allclose(found, expected, atol=1e-8)  # diffusers clamps a variance of 0 to 1e-20


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_gives_the_states_of_diffusers_flow(tmp_path, shift):
    net = unet()
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    pipeline = loaded(saved(tmp_path, net, theirs))
    timesteps = list(range(999, -1, -111))
    theirs.set_timesteps(sigmas=[(t + 1) / 1000 for t in timesteps])
    with torch.no_grad():
        x = x_T()
        for t in theirs.timesteps:
            x = theirs.step(net(x, t).sample, t, x).prev_sample
    found = list(ddim(pipeline.denoiser(), pipeline.scheduler, x_T(), timesteps=timesteps))[-1].x_t
    assert float((found - x).abs().max()) <= 1e-5  # 1.5e-6 seen; diffusers' flow computes in float32 only


def test_our_even_spacing_of_a_flow_is_that_of_diffusers(tmp_path):
    theirs = FlowMatchEulerDiscreteScheduler()
    pipeline = loaded(saved(tmp_path, unet(), theirs))
    theirs.set_timesteps(10)
    options = SamplingOptions(sampler="euler", sampling_steps=10)
    ours = [state.t + 1 for state in pipeline.states(1, options)][:-1]
    assert ours == theirs.timesteps.tolist()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_ddim_pipeline_of_diffusers_makes_the_same_images(tmp_path, prediction):
    DDIMPipeline(unet(), DDIMScheduler(prediction_type=prediction)).save_pretrained(tmp_path)
    theirs = DDIMPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(3)
    expected = theirs(4, g, num_inference_steps=10, use_clipped_model_output=True, output_type="np").images

    pipeline = loaded(tmp_path)
    states = ddim(pipeline.denoiser(), pipeline.scheduler, x_T(), timesteps=range(900, -1, -100))
    images = (list(states)[-1].x_t / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - expected).max() <= 1e-5
    assert images.std() > 0.1


def test_weights_of_half_precision_and_old_names_of_attention_layers_are_read(tmp_path):
    net = unet()
    saved(tmp_path, net, DDIMScheduler())
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, weight in load_file(path).items():
        for new_name, old_name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new_name}.", f".{old_name}.")
        old[name] = weight.half()
    assert any("proj_attn" in name for name in old)
    save_file(old, path)
    found = loaded(tmp_path).net.unet.state_dict()
    assert all(torch.equal(found[name], weight.half().float()) for name, weight in net.state_dict().items())


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/other-peoples-models.md").read_text()
    names = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    assert names["images"].shape == (4, 1, 8, 8)


# ---------------------------------------------------------------- what the model can do


def test_a_model_without_null_label_is_sampled_without_guidance_and_refuses_it(tmp_path):
    pipeline = loaded(saved(tmp_path, unet(num_class_embeds=3), DDIMScheduler()))
    assert pipeline.resolve().guidance == 0
    few = {"sampler": "ddim", "sampling_steps": 2}
    assert pipeline.sample(3, SamplingOptions(**few), labels=[2]).shape == (3, 1, 8, 8)
    with pytest.raises(ValueError, match="guidance needs predictions without a label"):
        pipeline.sample(3, SamplingOptions(guidance=1.0, **few))
    with pytest.raises(ValueError, match="has learnt its labels only"):
        pipeline.denoiser()(x_T(), 5)


def test_images_of_another_size_or_with_other_labels_are_refused(tmp_path):
    pipeline = loaded(saved(tmp_path, unet(sample_size=16), DDIMScheduler()))
    with pytest.raises(ValueError, match=r"images of shape \(1, 16, 16\), and those of dataset= have \(1, 8, 8\)"):
        pipeline.take_data({"name": "digits"})
    pipeline = loaded(saved(tmp_path, unet(num_class_embeds=3), DDIMScheduler()))
    with pytest.raises(ValueError, match="the model has 3 labels, and the images of dataset= have 10"):
        pipeline.take_data({"name": "digits"})


@pytest.fixture
def folder(tmp_path):
    """A pipeline folder in the working directory of commands."""
    DDIMPipeline(unet(), DDIMScheduler()).save_pretrained(tmp_path / "theirs")
    return tmp_path


@pytest.mark.slow
def test_inference_samples_with_a_film_and_a_recording(folder):
    line = "checkpoint=theirs num_samples=4 sampling_steps=3 viewer=file hydra.run.dir=out"
    succeeded(f"inference.py {line}", folder)
    assert np.load(folder / "out/samples.npy").shape == (4, 1, 8, 8)
    assert {"samples.png", "reverse.gif", "reverse.rrd"} <= {path.name for path in (folder / "out").iterdir()}


def test_a_figure_without_data_is_refused_in_a_sentence_that_says_how_to_give_them(folder):
    pipeline = loaded(folder / "theirs")
    pipeline.take_data({"name": "moons"})  # the default of dataset=
    with pytest.raises(ValueError, match=r"which data the model was trained on.* dataset=images dataset\.root=DIR"):
        pipeline.data_sets()
    pipeline.take_data({"name": "digits"})
    assert pipeline.data_sets()[0].dims == (1, 8, 8)


@pytest.mark.slow
def test_commands_that_need_data_say_so_in_one_sentence(folder):
    for line in ("evaluate.py", "compare.py", "inference.py observe=mask:left"):
        done = command(f"{line} checkpoint=theirs", folder)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "does not say which data the model was trained on" in done.stderr
        assert "dataset=images dataset.root=DIR" in done.stderr


@pytest.mark.slow
def test_every_command_runs_on_it_with_images_of_the_user(folder):
    few = "checkpoint=theirs dataset=digits"
    succeeded(f"evaluate.py {few} num_samples=100 sampling_steps=3 hydra.run.dir=e", folder)
    assert "Frechet distance" in json.loads((folder / "e/metrics.json").read_text())["figures"]
    options = "num_samples=100 evaluations=[3] samplers=[ddim,unipc] viewer=file hydra.run.dir=c"
    succeeded(f"compare.py {few} {options}", folder)
    assert (folder / "c/compare.rrd").exists()
    for method in ("pigdm", "repaint"):
        succeeded(f"inference.py {few} observe=mask:left observe_method={method} hydra.run.dir={method}", folder)
        assert (folder / method / "inpainting.png").exists()


def test_what_needs_a_network_of_moonwalk_refuses_it(folder):
    pipeline = loaded(folder / "theirs")
    with pytest.raises(ValueError, match="a page runs the networks of moonwalk"):
        check_can_be_shared(pipeline)
    with pytest.raises(ValueError, match="only the parts of moonwalk's UNet can be drawn"):
        trained_parts(pipeline, pipeline.device)


@pytest.mark.slow
def test_commands_that_need_a_network_of_moonwalk_refuse_it_in_one_sentence(folder):
    for line, words in (
        ("train.py resume=theirs", "cannot be resumed: it lacks 'optimizers'"),
        ("scripts/share.py theirs", "a page runs the networks of moonwalk"),
    ):
        done = command(line, folder)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr


def test_one_sentence_says_how_to_install_diffusers_where_it_is_missing(folder, monkeypatch):
    # None in sys.modules makes an import fail as that of a missing package does.
    monkeypatch.setitem(sys.modules, "diffusers.models.unets.unet_2d", None)
    assert refusal(folder / "theirs").endswith(
        "theirs cannot be used: a model of diffusers needs the package diffusers:"
        " pip install -r requirements/diffusers.txt"
    )


# ---------------------------------------------------------------- bad input


def refusal(folder):
    """The sentence with which a folder is refused."""
    with pytest.raises((ValueError, OSError)) as error:
        loaded(folder)
    text = str(error.value)
    assert "\n" not in text
    return text


FILES = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    path = folder / "theirs" / name
    path.unlink()
    assert refusal(folder / "theirs") == f"the model folder {path.parent} lacks the file {path.name}"
    done = command("inference.py checkpoint=theirs", folder)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert path.name in done.stderr


@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"])
def test_a_missing_file_of_a_bare_folder_is_named(tmp_path, name):
    (saved(tmp_path, unet(), DDIMScheduler()) / name).unlink()
    assert refusal(tmp_path) == f"the model folder {tmp_path} lacks the file {name}"


def test_the_file_of_weights_is_refused_with_the_advice_to_name_its_folder(folder):
    done = command("inference.py checkpoint=theirs/unet/diffusion_pytorch_model.safetensors", folder)
    assert "holds weights alone: name the folder of the model" in done.stderr


def test_another_architecture_is_named_with_what_is_supported(tmp_path):
    saved(tmp_path, unet(), PNDMScheduler())
    supported = "UNet2DModel with DDPMScheduler, DDIMScheduler or FlowMatchEulerDiscreteScheduler"
    assert refusal(tmp_path).endswith(f"scheduler_config.json is of PNDMScheduler; moonwalk reads {supported}")
    changed(tmp_path / "config.json", _class_name="UNet2DConditionModel")
    assert refusal(tmp_path).endswith(f"config.json is of UNet2DConditionModel; moonwalk reads {supported}")


def test_a_pipeline_with_more_parts_is_refused(folder):
    changed(folder / "theirs/model_index.json", _class_name="LDMPipeline", vqvae=["diffusers", "VQModel"])
    assert "theirs is LDMPipeline with vqvae; moonwalk reads UNet2DModel" in refusal(folder / "theirs")


def changed(path, **values):
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("sample_size", None, "must be one or two whole numbers from 1"),
        ("sample_size", float("nan"), "it holds NaN, which is no number"),
        ("sample_size", 1_000_000, "asks for more than 67,108,864 numbers"),
        ("sample_size", [8, -8], "must be one or two whole numbers from 1"),
        ("sample_size", 7, "cannot take images of shape (1, 7, 7)"),
        ("in_channels", 1e400, "it holds Infinity, which is no number"),
        ("in_channels", 10**12, "must be in_channels, 1000000000000"),
        ("out_channels", 2, "must be in_channels, 1: moonwalk knows no learned variance"),
        ("block_out_channels", [16, 4096], "is of shape"),
        ("block_out_channels", [16, 10**9], "does not fit its own configuration"),
        ("block_out_channels", [16, "32"], "does not fit its own configuration"),
        ("layers_per_block", 10**9, "tensors of weights, which is more than it holds"),
        ("layers_per_block", 2, "resnets.1.norm1.weight is absent, and here of shape"),
        ("norm_num_groups", 7, "does not fit its own configuration"),
        ("num_class_embeds", 10**12, "must be 0, as"),
        ("class_embed_type", "timestep", "must be None: moonwalk has nothing else"),
        ("time_embedding_type", "fourier", "time_embedding_type must be positional"),
        ("down_block_types", ["CrossAttnDownBlock2D", "DownBlock2D"], "does not fit its own configuration"),
    ],
)
def test_options_of_the_network_that_cannot_be_used_are_refused(tmp_path, option, value, words):
    saved(tmp_path, unet(), DDIMScheduler())
    changed(tmp_path / "config.json", **{option: value})
    assert words in refusal(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("thresholding", True, "thresholding must be False: moonwalk has nothing else; got True"),
        ("beta_schedule", "laplace", "must be one of linear, scaled_linear, squaredcos_cap_v2; got 'laplace'"),
        ("prediction_type", "flow", "must be one of epsilon, sample, v_prediction; got 'flow'"),
        ("num_train_timesteps", 0, "must be a whole number from 1; got 0"),
        ("num_train_timesteps", 10**12, "num_timesteps must be at most 1,000,000"),
        ("trained_betas", [0.1, 0.2], "must be 1000 numbers"),
        ("trained_betas", ["0.1"] * 1000, "does not fit its own configuration"),
        ("trained_betas", [2.0] * 1000, "betas must be a list of numbers"),
        ("beta_start", "low", "must be a number; got 'low'"),
        ("clip_sample_range", 0, "must be above 0"),
    ],
)
def test_options_of_the_scheduler_that_cannot_be_honoured_are_refused(tmp_path, option, value, words):
    saved(tmp_path, unet(), DDIMScheduler())
    changed(tmp_path / "scheduler_config.json", **{option: value})
    assert words in refusal(tmp_path)


def test_options_of_a_flow_that_cannot_be_honoured_are_refused(tmp_path):
    saved(tmp_path, unet(), FlowMatchEulerDiscreteScheduler())
    for option, value in (("use_dynamic_shifting", True), ("invert_sigmas", True), ("shift_terminal", 0.1)):
        changed(tmp_path / "scheduler_config.json", **{option: value})
        assert f"{option} must be" in refusal(tmp_path)
        changed(tmp_path / "scheduler_config.json", **{option: None if option == "shift_terminal" else False})
    loaded(tmp_path)


def test_noise_is_not_predicted_where_no_signal_is_left(tmp_path):
    saved(tmp_path, unet(), DDIMScheduler(rescale_betas_zero_snr=True))
    assert "prediction=eps cannot work where no signal is left" in refusal(tmp_path)
    saved(tmp_path, unet(), DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    check_target(loaded(tmp_path).scheduler, "v")


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00\x01", "{" + '"a":{' * 100_000, '{"sample_size": NaN}'])
@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json"])
def test_a_file_that_is_no_json_is_refused(tmp_path, name, content):
    saved(tmp_path, unet(), DDIMScheduler())
    (tmp_path / name).write_text(content)
    assert f"{name} cannot be used: " in refusal(tmp_path)


def with_header(header, body=b""):
    """A safetensors file: the length of the header, the header, the bytes of the tensors."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


TENSOR = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
DAMAGED = {
    "empty": lambda whole: b"",
    "cut in the header": lambda whole: whole[:100],
    "cut in the tensors": lambda whole: whole[:-1],
    "longer": lambda whole: whole + b"\x00",
    "no safetensors": lambda whole: b"PK\x03\x04" * 100,
    "a header of an exabyte": lambda whole: struct.pack("<Q", 2**60) + whole[8:],
    "tensors of terabytes": lambda whole: with_header({"conv_in.weight": TENSOR}),
    "a shape that is not that of the bytes": lambda whole: with_header(
        {"a": TENSOR | {"data_offsets": [0, 8]}}, bytes(8)
    ),
    "a type that there is not": lambda whole: with_header(
        {"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_safetensors_is_refused(tmp_path, damage):
    path = saved(tmp_path, unet(), DDIMScheduler()) / "diffusion_pytorch_model.safetensors"
    path.write_bytes(DAMAGED[damage](path.read_bytes()))
    assert refusal(tmp_path).startswith(f"{path} is damaged, cut short, or no safetensors file (")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("conv_in.weight"), "conv_in.weight is absent, and here of shape (16, 1, 3, 3)"),
        (lambda w: w.update({"conv_in.weight": torch.zeros(16, 2, 3, 3)}), "is of shape (16, 2, 3, 3), and here"),
        (lambda w: w.update(stranger=torch.zeros(1)), "stranger is of shape (1,), and here absent"),
        (lambda w: w.update({"conv_in.bias": torch.full((16,), float("nan"))}), "conv_in.bias is not finite"),
        (lambda w: w.clear(), "more than 2 tensors of weights"),
    ],
    ids=["missing", "wrong shape", "one too many", "NaN", "none"],
)
def test_tensors_that_are_not_those_of_the_network_are_refused(tmp_path, change, words):
    path = saved(tmp_path, unet(), DDIMScheduler()) / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    assert words in refusal(tmp_path)


def test_a_run_folder_with_a_file_of_such_a_name_stays_a_run_folder(run, tmp_path):
    shutil.copy(run / "last.pt", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert loaded(tmp_path).dims == (2,)
