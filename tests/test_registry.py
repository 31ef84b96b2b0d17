"""The registries: every row names code that exists, and is read without torch."""

import subprocess
import sys

import pytest
from conftest import ROOT

import conf.choices
from diffusion import Target, prediction_target
from registry import implementation
from registry.posterior_rows import METHODS
from registry.process_rows import LOSS_WEIGHTS, SCHEDULE_ALIASES, SCHEDULES, TARGETS
from registry.sampler_rows import SAMPLER_ALIASES, SAMPLERS, SAMPLING, SPACINGS
from samplers.observation import MASKS

ROWS = {
    f"{kind}:{name}": row
    for kind, rows in {
        "sampler": SAMPLERS,
        "spacing": SPACINGS,
        "schedule": SCHEDULES,
        "target": TARGETS,
        "loss weight": LOSS_WEIGHTS,
        "method": METHODS,
    }.items()
    for name, row in rows.items()
}


@pytest.mark.parametrize("name", ROWS)
def test_the_code_that_a_row_names_exists(name):
    assert implementation(ROWS[name]) is not None


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_one_line_of_help(name):
    assert ROWS[name].help and "\n" not in ROWS[name].help


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_function_of_a_sampler_bears_its_name(name):
    assert implementation(SAMPLERS[name]).__name__ == name


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_spacing_of_a_sampler_exists(name):
    assert SAMPLERS[name].spacing in SPACINGS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_a_target(name):
    assert isinstance(prediction_target(name), Target)


def test_an_unknown_target_is_refused_with_all_that_there_are():
    with pytest.raises(ValueError, match=f"choose one of {', '.join(TARGETS)}"):
        prediction_target("noise")


def test_aliases_stand_for_rows():
    assert set(SAMPLER_ALIASES.values()) <= SAMPLERS.keys()
    assert set(SCHEDULE_ALIASES.values()) <= SCHEDULES.keys()


def test_every_kind_of_data_is_sampled_by_a_sampler_that_exists():
    assert {row.sampler for row in SAMPLING.values()} <= SAMPLERS.keys()


def test_the_masks_of_the_help_are_those_of_the_code():
    assert set(conf.choices.MASKS) == MASKS.keys()


def test_the_rows_are_read_without_torch_and_numpy():
    code = (
        "import sys, registry.sampler_rows, registry.process_rows, registry.posterior_rows;"
        "sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
