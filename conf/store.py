"""The options of conf/config.py in Hydra's ConfigStore."""

from dataclasses import fields
from typing import Any

from hydra.core.config_store import ConfigStore

from conf.config import COMMANDS
from conf.groups import GROUPS, PRESETS


def register(running: str) -> None:
    """Put every command and group into Hydra's ConfigStore. running: the command, since presets are for train only."""
    store = ConfigStore.instance()
    for group, members in GROUPS.items():
        for choice, member in members.items():
            # in the global package, so that a choice can set the training's own options beside its own
            node = {group: member, **(PRESETS.get(choice, {}) if running == "train" else {})}
            store.store(group=group, name=choice, node=node, package="_global_")
    for name, command in COMMANDS.items():
        groups = [{f.name: f.default} for f in reversed(fields(command)) if f.name in GROUPS]  # the data set wins
        store.store(name=f"{name}_schema", node=command)
        stamp = "${now:%Y-%m-%d_%H-%M-%S-%f}"  # with microseconds: two runs may start in one second
        task_name = "${oc.select:task_name,null}"
        hydra: dict[str, Any] = {
            "run": {"dir": f"${{run_folder:{name},{task_name},{stamp}}}"},
            "sweep": {"dir": f"${{sweep_folder:{name},{task_name},{stamp}}}", "subdir": "${hydra.job.num}"},
            "job": {"name": name},
            "callbacks": {"sweep": {"_target_": "conf.sweep.Sweep"}},
        }
        if name == "main":  # a demonstration: its pictures are easy to find and replace each other
            hydra |= {"run": {"dir": "outputs"}, "output_subdir": None}
            hydra["sweep"] |= {"subdir": "${hydra.job.override_dirname}"}  # as no file says which options a run had
        defaults = [f"{name}_schema", *groups, "_self_", {"override hydra/job_logging": "disabled"}]
        store.store(name=name, node={"defaults": defaults, "hydra": hydra})
