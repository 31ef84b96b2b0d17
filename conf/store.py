"""The options of conf/config.py in Hydra's ConfigStore, and the help that is made from them."""

from dataclasses import fields
from typing import Any

from hydra.core.config_store import ConfigStore

from conf.config import COMMANDS
from conf.groups import GROUPS, PRESETS
from conf.option import allowed

# ---------------------------------------------------------------- --help


def help_text(name: str) -> str:
    """What `python NAME.py --help` prints."""
    command, purpose = COMMANDS[name]
    lines = [purpose, "", f"python {name}.py [option=value | --option value] ...", ""]
    own = [f for f in fields(command) if f.name not in GROUPS]
    own.sort(key=lambda f: f.name not in command.__annotations__)  # what is special to the command comes first
    width = max(len(_shown(f)) for f in own)
    lines += [_described(f, width) for f in own]
    for group, members in GROUPS.items():
        if group in {f.name for f in fields(command)}:
            for choice, member in members.items():
                chosen = " (default)" if choice == _default(command, group) else ""
                lines += ["", f"{group}={choice}{chosen}: {fields(member)[0].metadata['help']}"]
                lines += [_described(f, width, f"{group}.") for f in fields(member)[1:]]
                if preset := PRESETS.get(choice):
                    lines.append("  and sets " + ", ".join(f"{k}={_value(v)}" for k, v in preset.items()))
    lines += ["", "Several values at once, run one after the other: -m lr=1e-3,4e-3", ""]
    return "\n".join(lines).replace("$", "$$")


def _shown(f: Any, prefix: str = "") -> str:
    default = f.default_factory() if callable(f.default_factory) else f.default
    return f"{prefix}{f.name}={_value(default)}".replace(" ", "")


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _described(f: Any, width: int, prefix: str = "") -> str:
    limits = allowed(f.metadata)
    return f"  {_shown(f, prefix):<{width}}  {f.metadata['help']}{f' [{limits}]' if limits else ''}"


def _default(command: type, group: str) -> str:
    return next(f.default for f in fields(command) if f.name == group)


# ---------------------------------------------------------------- Hydra's store


def register() -> None:
    """Put every command and group into Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for group, members in GROUPS.items():
        for choice, member in members.items():
            # in the global package, so that a network can set the training's own options beside its own
            node = {group: member, **PRESETS.get(choice, {})}
            store.store(group=group, name=choice, node=node, package="_global_")
    for name, (command, _) in COMMANDS.items():
        groups = [{f.name: f.default} for f in fields(command) if f.name in GROUPS]
        store.store(name=f"{name}_schema", node=command)
        stamp = "${now:%Y-%m-%d_%H-%M-%S-%f}"  # with microseconds: two runs may start in one second
        task_name = "${oc.select:task_name,null}"
        hydra = {
            "run": {"dir": f"${{run_folder:{name},{task_name},{stamp}}}"},
            "sweep": {"dir": f"${{sweep_folder:{name},{task_name},{stamp}}}", "subdir": "${hydra.job.num}"},
            "help": {"template": help_text(name)},
        }
        if name == "main":  # a demonstration: its pictures are easy to find and replace each other
            hydra |= {"run": {"dir": "outputs"}, "output_subdir": None}
        defaults = [f"{name}_schema", *groups, "_self_", {"override hydra/job_logging": "disabled"}]
        store.store(name=name, node={"defaults": defaults, "hydra": hydra})
