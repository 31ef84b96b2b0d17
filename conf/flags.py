"""GNU-style flags beside Hydra overrides: `--num-samples 1000 --no-rerun` means `num_samples=1000 rerun=false`."""

import re
from collections.abc import Sequence

# Hydra's own flags pass untouched (tests/test_flags.py compares this list with Hydra's parser).
HYDRA_FLAGS = {
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun", "--info", "-i",
}  # fmt: skip
HYDRA_FLAGS_WITH_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun",
}  # fmt: skip
# names that users of other repositories type, and what is meant
ALIASES = {"data_path": "dataset.root", "root": "dataset.root", "judge_samples": "eval_samples"}
NEGATIVE_NUMBER = re.compile(r"-\.?\d")


def to_overrides(argv: Sequence[str]) -> list[str]:
    """Rewrite the arguments of a command into Hydra's own language.

    `--some-option VALUE` and `--some-option=VALUE` become `some_option=VALUE`, `--flag` becomes `flag=true`
    and `--no-flag` becomes `flag=false`; dots nest (`--model.hidden 64`). Hydra's flags are put in front,
    because Hydra itself fails on `seed=1 -m lr=1,2`.
    """
    hydra, overrides, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        if word.split("=")[0] in HYDRA_FLAGS:
            hydra.append(word)
            if word in HYDRA_FLAGS_WITH_VALUE and rest:
                hydra.append(rest.pop(0))
        elif word.startswith("--") and len(word) > 2:
            overrides.append(_override(word[2:], rest))
        else:
            overrides.append(_quoted(*word.split("=", 1)) if "=" in word else word)
    return hydra + overrides


def _override(flag: str, rest: list[str]) -> str:
    """One override from a flag without its dashes; takes its value from the front of `rest` where it has one."""
    name, equals, value = flag.partition("=")
    name = name.replace("-", "_")
    if equals:
        return _quoted(name, value)
    if rest and "=" not in rest[0] and (not rest[0].startswith("-") or NEGATIVE_NUMBER.match(rest[0])):
        return _quoted(name, rest.pop(0))
    return f"{name[3:]}=false" if name.startswith("no_") else f"{name}=true"


def _quoted(name: str, value: str) -> str:
    """`name=value`, the value in quotes where Hydra's grammar has no words for it (a path with a colon, say)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    name = ALIASES.get(name, name)
    try:
        OverridesParser.create().parse_override(f"{name}={value}")
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{name}='{escaped}'"
    return f"{name}={value}"
