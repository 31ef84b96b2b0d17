"""Both spellings of options, and the help."""

import pytest
from conftest import command
from hydra._internal.utils import get_args_parser

from conf.flags import HYDRA_FLAGS, HYDRA_FLAGS_WITH_VALUE, to_overrides
from conf.groups import CHOICE_DEFAULTS


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--num-samples 1000", "num_samples=1000"),
        ("--num-samples=1000", "num_samples=1000"),
        ("num_samples=1000", "num_samples=1000"),
        ("--no-rerun --save-plots", "rerun=false save_plots=true"),
        ("--save-plots --no-rerun", "save_plots=true rerun=false"),
        ("--save-plots seed=3", "save_plots=true seed=3"),
        ("--model.hidden 64", "model.hidden=64"),
        ("--beta-start -1e-3", "beta_start=-1e-3"),
        ("--lr -.5", "lr=-.5"),
        ("--viewer web", "viewer=web"),
        ("--observe y=0.2 --seed 3", "observe='y=0.2' seed=3"),
        ("--task-name a=b", "task_name='a=b'"),
        ("--no-rerun x=3 --rerun y=3", "rerun=false x=3 rerun=true y=3"),
        ("seed=1 -m lr=1,2", "-m seed=1 lr=1,2"),
        ("--multirun --lr 1,2", "--multirun lr=1,2"),
        ("--help", "--help"),
        ("--cfg job --seed 1", "--cfg job seed=1"),
        ("--track-samples [0,1]", "track_samples=[0,1]"),
        ("--data-path data/mine", "dataset.root=data/mine"),
        ("root=data/mine", "dataset.root=data/mine"),
        ("--data-path points.npy --dataset file", "dataset.path=points.npy dataset=file"),
        ("--data-path points.npy", "dataset=file dataset.path=points.npy"),
        ("--data-path My.CSV.gz seed=1", "dataset=file dataset.path=My.CSV.gz seed=1"),
        ("--judge-samples 0", "eval_samples=0"),
        ("+lr=1", "lr=1"),
        ("++lr=1", "lr=1"),
        ("lr=1 --hydra-help", "--hydra-help"),
        ("--train-ddpm-model --lr 1e-4", "dataset=mnist model=unet ckpt_save_name=test_001.pth lr=1e-4"),
        ("--dataset digits --train-ddpm-model", "model=unet ckpt_save_name=test_001.pth dataset=digits"),
        ("task_name=a(b", "task_name='a(b'"),
    ],
)
def test_both_spellings_become_words_of_hydra(typed, meant):
    assert to_overrides(typed.split()) == meant.split()


@pytest.mark.parametrize("typed", ["--lr seed=3", "--lr model.x=3", "--lr --no-rerun", "--no-lr", "--seed.x=3"])
def test_a_missing_value_is_named(typed):
    with pytest.raises(ValueError, match=r"is not a switch but takes a value|has no parts"):
        to_overrides(typed.split())


def test_values_that_hydra_has_no_words_for_are_quoted():
    assert to_overrides(["--checkpoint", "C:\\it's (1).pt"]) == ["checkpoint='C:\\it\\'s (1).pt'"]


def test_all_of_hydras_own_flags_are_known():
    actions = get_args_parser()._actions
    assert {s for a in actions for s in a.option_strings} == HYDRA_FLAGS


def test_those_of_hydras_own_flags_that_take_a_value_are_known():
    actions = get_args_parser()._actions
    assert {s for a in actions if a.nargs is None for s in a.option_strings} == HYDRA_FLAGS_WITH_VALUE


def shown(line, folder):
    """The options that a training by this line has, as lines of YAML."""
    return {*command(f"train.py {line} --cfg job", folder).stdout.splitlines()}


@pytest.mark.parametrize("line", ["model=unet lr=0.5", "lr=0.5 model=unet"])
def test_a_network_brings_its_defaults_and_the_person_wins_wherever_the_option_stands(line, tmp_path):
    expected = {"lr: 0.5", f"batch_size: {CHOICE_DEFAULTS['unet']['batch_size']}", "schedule: cosine", "  patch: 2"}
    assert expected <= shown(line, tmp_path)


def test_a_network_without_defaults_of_its_own_leaves_those_there_are(tmp_path):
    assert {"schedule: linear", "lr: 0.02"} <= shown("model=mlp", tmp_path)


@pytest.mark.parametrize("line", ["dataset=emoji model=unet", "model=unet dataset=emoji"])
def test_the_defaults_of_a_data_set_win_over_those_of_a_network(line, tmp_path):
    expected = {f"num_epochs: {CHOICE_DEFAULTS['emoji']['num_epochs']}", "schedule: cosine"}
    assert expected <= shown(line, tmp_path)


@pytest.mark.parametrize("typed", ["-lr=3", "-1=null", "-lr", "lr", "seed=3 -x=2"])
def test_one_dash_makes_no_option(typed):
    """Hydra's parser would end with 2 and its own usage."""
    with pytest.raises(ValueError, match=f"^{typed.split()[-1]}: write options as name=value or --name value$"):
        to_overrides(typed.split())
