"""The options of conf/config.py in Hydra: registered in its ConfigStore, composed and checked."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from conf.config import COMMANDS
from conf.groups import CHOICE_DEFAULTS, GROUPS
from conf.like import options_like
from conf.memory import check_memory
from conf.option import check
from conf.preset_files import check_presets
from conf.presets import CONF, EXPERIMENT

# The time names a run folder. It has microseconds because two runs may start in one second.
STAMP = "${now:%Y-%m-%d_%H-%M-%S-%f}"
TASK_NAME = "${oc.select:task_name,null}"


def register(name: str, overrides: Sequence[str] = ()) -> None:
    """Put the command of that name, its data sets and its networks into Hydra's ConfigStore.

    overrides: of the command line. With like=RUN among them, the options of that run are the defaults.

    Raises:
        ValueError, OSError: there is no such run, it holds no options of this version, or a preset is wrong.
    """
    store = ConfigStore.instance()
    command = COMMANDS[name]
    like = options_like(name, overrides)
    check_presets(name, overrides, like)
    groups = {f.name: f.default for f in fields(command) if f.name in GROUPS}
    schema: Any = command
    if like:
        schema = replace(like, **groups)

    for group in groups:
        of_run = getattr(like, group, None)
        if of_run:
            groups[group] = of_run.name
        for choice, member in GROUPS[group].items():
            # Only a training takes the other defaults of a data set or a network.
            others = CHOICE_DEFAULTS.get(choice, {}) if name == "train" else {}
            if of_run and choice == of_run.name:
                member = of_run
                others = {}
            # The global package lets a choice set options of the training beside its own.
            node = {group: member, **others}
            store.store(group=group, name=choice, node=node, package="_global_")

    store.store(name=f"{name}_schema", node=schema)
    # The last default wins: the data set over the network, and presets over both.
    chosen = [{group: default} for group, default in reversed(groups.items())]
    defaults = [f"{name}_schema", *chosen, "_self_", {EXPERIMENT: None}, {"override hydra/job_logging": "disabled"}]
    store.store(name=name, node={"defaults": defaults, "hydra": _hydra_options(name)})


def _hydra_options(name: str) -> dict[str, Any]:
    """Hydra's own options: the folders of the runs (see folders.py) and the callback of a sweep."""
    job = {"name": name}
    callbacks = {"sweep": {"_target_": "conf.sweep.Sweep"}}
    sweep_folder = f"${{sweep_folder:{name},{TASK_NAME},{STAMP}}}"

    if name == "main":
        # The pictures of a demonstration are easy to find, and those of the next run replace them.
        # Without a file of options, the name of a sweep's folder says which options each run had.
        return {
            "run": {"dir": "outputs"},
            "sweep": {"dir": sweep_folder, "subdir": "${hydra.job.override_dirname}"},
            "output_subdir": None,
            "job": job,
            "callbacks": callbacks,
        }
    return {
        "run": {"dir": f"${{run_folder:{name},{TASK_NAME},{STAMP}}}"},
        "sweep": {"dir": sweep_folder, "subdir": "${hydra.job.num}"},
        "job": job,
        "callbacks": callbacks,
    }


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of command `name` with these overrides, such as "lr=1e-3".

    Raises:
        HydraException, OmegaConfBaseException: an option is unknown, or its value has a wrong type.
    """
    register(name, overrides)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(name, list(overrides))


def checked(cfg: DictConfig) -> Any:
    """The configuration as the dataclass of its command; dataset and model are dataclasses in it.

    Raises:
        ValueError: an option is out of its range, not among its choices, or needs too much memory.
    """
    options = OmegaConf.to_object(cfg)
    check(options)
    check_memory(options)
    return options
