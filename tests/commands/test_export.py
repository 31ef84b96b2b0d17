"""An exported model is sampled with the bits of its run, its card says how good it is, and a notebook uses it."""

import json
import shutil

import nbformat
import pytest
import torch
from conftest import NO_EVALUATION, ROOT, command, not_blank, started, succeeded, untrained
from nbclient import NotebookClient
from safetensors.torch import load_file, save_file

from conf.groups import Digits, UNetSmall
from pipeline import Pipeline
from runtime import checkpoint_file, exported_folder
from samplers.options import SamplingOptions
from scripts.export import model_card

SMALL_RUN = "num_samples=2000 batch_size=256 model.hidden=32 num_timesteps=50 max_steps=30"


@pytest.fixture(scope="module")
def exported(workplace, run):
    """A folder with the run folder `run` and the model in it, exported as `model`."""
    shutil.copytree(run, workplace / "run", dirs_exist_ok=True)
    succeeded("scripts/export.py run --out shared/model", workplace)
    return workplace


def load(path):
    return Pipeline.load(path, "cpu", "fp32")


def refused(folder):
    with pytest.raises((ValueError, OSError)) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- the folder


def test_an_exported_model_is_sampled_with_the_bits_of_the_run(exported):
    assert {path.name for path in (exported / "shared/model").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    run, model = load(exported / "run"), load(exported / "shared/model")
    assert model.config == run.config
    for sampler in ("dpmpp_2m_sde", "ddim"):
        options = SamplingOptions(sampler=sampler, sampling_steps=10)
        assert torch.equal(model.sample(200, options, seed=1), run.sample(200, options, seed=1))


def test_the_averaged_weights_are_exported(exported):
    state = checkpoint_file.load(exported / "run")
    weights = load_file(exported / "shared/model/model.safetensors")
    name = "outputs.weight"
    assert torch.equal(weights[f"net.{name}"], state["ema"][f"module.{name}"])
    assert not torch.equal(weights[f"net.{name}"], state["net"][name])
    assert torch.equal(weights["normaliser.mean"], state["normaliser"]["mean"])


@pytest.mark.slow
def test_a_command_runs_on_an_exported_model(exported, tmp_path):
    line = (
        f"inference.py checkpoint={exported / 'shared/model'} num_samples=50 viewer=file hydra.run.dir={tmp_path}/out"
    )
    succeeded(line, tmp_path)
    assert not_blank(tmp_path / "out/samples.png")
    assert (tmp_path / "out/reverse.rrd").exists()


@pytest.mark.slow
def test_an_early_snapshot_labels_and_columns_are_exported(tmp_path):
    rows = [f"{i / 7},{i % 5},{'ab'[i % 2]}" for i in range(300)]
    (tmp_path / "mine.csv").write_text("\n".join(["height,count,kind", *rows]))
    data = "dataset=file dataset.path=mine.csv dataset.label=kind conditional=true early_ema=0.5"
    succeeded(f"train.py {SMALL_RUN} {data} {NO_EVALUATION} task_name=run", tmp_path)
    succeeded("scripts/export.py checkpoint=run --out model", tmp_path)
    run, model = load(tmp_path / "run"), load(tmp_path / "model")
    assert (model.classes, model.columns, model.label_counts) == (run.classes, run.columns, run.label_counts)
    options = SamplingOptions(autoguidance=1.0)
    assert torch.equal(model.sample(50, options, seed=1), run.sample(50, options, seed=1))

    (tmp_path / "mine.csv").write_text("height,count,kind\n1,2,a\n")
    done = command("evaluate.py checkpoint=model", tmp_path)  # the checksum of the data is exported, too
    assert done.returncode == 1
    assert done.stderr.startswith("mine.csv ") and done.stderr.count("\n") == 1


def test_images_and_their_unet_are_exported(tmp_path):
    pipeline = untrained(Digits(), UNetSmall(), conditional=True)
    average = {f"module.{name}": weight for name, weight in pipeline.net.state_dict().items()}
    state = {
        "config": pipeline.config,
        "classes": pipeline.classes,
        "normaliser": vars(pipeline.normaliser),
        "ema": {"n_averaged": torch.tensor(1), **average},
    }
    exported_folder.save(tmp_path, state)
    options = SamplingOptions(sampling_steps=3)
    assert torch.equal(load(tmp_path).sample(4, options), pipeline.sample(4, options))


# ---------------------------------------------------------------- the card


def test_the_card_holds_the_verdicts_the_options_and_two_lines_of_python(exported):
    card = (exported / "shared/model/README.md").read_text()
    figures = json.loads((exported / "run/metrics.json").read_text())["figures"]
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [f"| {name}".replace("||", "\\|\\|") for name in figures]
    failed = [name for name, row in figures.items() if not row["passed"]]
    assert f"Verdict: distinguishable by {', '.join(failed)}." in card
    assert "\nmodel.hidden=32\n" in card
    assert "\nsamples = Pipeline.load('model').sample(1000)\n" in card


@pytest.mark.slow  # a new interpreter
def test_the_python_of_the_card_runs_where_the_model_lies(exported):
    card = (exported / "shared/model/README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    succeeded(["-c", f"{code}\nassert samples.shape == (1000, 2)"], exported / "shared", started)


def test_the_card_of_a_run_without_evaluation_says_so():
    pipeline = untrained(Digits(), UNetSmall(), conditional=True)
    card = model_card(pipeline, {}, {}, "digits")
    assert "The run was not evaluated." in card
    assert "makes images of 1 x 8 x 8 numbers" in card


# ---------------------------------------------------------------- bad input


def test_a_folder_that_is_not_empty_is_left_as_it_is(exported, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, words in (("full", "that folder is not empty; name a new one"), ("file", "that is a file")):
        done = command(f"scripts/export.py {exported / 'run'} --out {out}", tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_folder_is_filled(exported, tmp_path):
    (tmp_path / "empty").mkdir()
    succeeded(f"scripts/export.py {exported / 'run'} --out empty", tmp_path)
    assert load(tmp_path / "empty").dims == (2,)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_of_an_export_is_named(exported, tmp_path, name):
    model = shutil.copytree(exported / "shared/model", tmp_path / "model")
    (model / name).unlink()
    assert refused(model) == f"the model folder {model} lacks the file {name}"


def test_a_damaged_export_is_refused(exported, tmp_path):
    model = shutil.copytree(exported / "shared/model", tmp_path / "model")
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-8])
    assert "is damaged, cut short, or no safetensors file" in refused(model)

    tensors = load_file(exported / "shared/model/model.safetensors")
    for change, words in (
        ({"net.outputs.weight": torch.zeros(3, 32)}, "module.outputs.weight is of shape (3, 32), and here"),
        ({"normaliser.std": torch.zeros(2)}, "std not above 0"),
        ({"normaliser.mean": torch.zeros(2, 2)}, "its normaliser has shapes"),
        ({"net.outputs.weight": None}, "module.outputs.weight is absent"),
        ({"net.outputs.bias": torch.full((2,), float("inf"))}, "outputs.bias is not finite"),
    ):
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        save_file(changed, model / "model.safetensors")
        assert words in refused(model)


def test_wrong_options_in_an_export_are_refused(exported, tmp_path):
    model = shutil.copytree(exported / "shared/model", tmp_path / "model")
    plain = json.loads((model / "config.json").read_text())
    for change, words in (
        ({"format": "moonwalk model 2"}, "is not of this version of moonwalk (moonwalk model 1)"),
        ({"classes": 3}, "its classes are not a list of names"),
        ({"config": None}, "does not fit its own configuration"),
        (
            {"config": plain["config"] | {"model": {"name": "mlp", "hidden": 10**9}}},
            "does not fit its own configuration",
        ),
        ({"config": plain["config"] | {"num_timesteps": float("nan")}}, "it holds NaN, which is no number"),
        ({"columns": {"names": 3}}, "its columns are not those of a table"),
    ):
        (model / "config.json").write_text(json.dumps(plain | change))
        assert words in refused(model)


def test_an_export_cannot_be_resumed(exported):
    done = command("train.py resume=shared/model num_epochs=200", exported)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be resumed: it lacks 'optimizers', as only a model is kept" in done.stderr


# ---------------------------------------------------------------- a notebook in another folder


@pytest.mark.slow
def test_one_line_makes_moonwalk_usable_in_a_notebook_of_another_folder(exported, tmp_path, monkeypatch):
    """The line is that of docs/other-peoples-models.md. Files called like moonwalk's lie beside the notebook."""
    text = (ROOT / "docs/other-peoples-models.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("import sys; sys.path.insert")]
    line = line.replace("/path/to/moonwalk", str(ROOT))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name in ("dataset.py", "model.py"):
        (tmp_path / name).write_text("raise RuntimeError('the file beside the notebook')")

    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell(line),
        nbformat.v4.new_code_cell("from pipeline import Pipeline\nfrom samplers.options import SamplingOptions"),
        nbformat.v4.new_code_cell(f"pipeline = Pipeline.load({str(exported / 'shared/model')!r})"),
        nbformat.v4.new_code_cell(
            "x = pipeline.sample(100, SamplingOptions(sampler='adams', sampling_steps=5), seed=0)"
        ),
        nbformat.v4.new_code_cell("x.shape"),
    ]
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert book.cells[-1].outputs[0]["data"]["text/plain"] == "torch.Size([100, 2])"
