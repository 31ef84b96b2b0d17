"""The layout: who may import whom, what stands at the root, and the map of files in docs/architecture.md."""

import ast
import re
import subprocess
from collections import Counter

from conftest import ROOT

TRACKED = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
PRODUCT = [path for path in TRACKED if path.endswith(".py") and not path.startswith("tests/")]

# Each line imports only from the lines above it, and from its own room. A file that stands here by its own name belongs
# to its own line, not to that of its folder.
LAYERS = [
    ("registry", "points.text_layout"),
    # A command names the columns of a file, and the options of a run, before it imports torch.
    ("points.tables", "runtime.checkpoint_contents"),
    ("conf",),
    ("runtime",),
    ("schedule",),
    ("nets", "images"),
    ("points",),
    ("dataset", "loader", "model", "diffusion"),
    ("samplers",),
    ("loss",),
    ("pipeline",),
    ("metrics",),
    ("viz",),
    ("rerun_viz",),
    ("training",),
    ("train", "inference", "evaluate", "compare", "main", "loss.root", "loss.plot", "loss.report"),
    ("scripts", "lessons", "benchmarks", "docs"),
]
COMMANDS = LAYERS[-2] + LAYERS[-1]


def module(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room(name):
    """The name in LAYERS that a module belongs to: its own, or that of its folder."""
    named = {entry for line in LAYERS for entry in line}
    return name if name in named else name.split(".")[0]


def layer(name):
    return next(i for i, line in enumerate(LAYERS) if room(name) in line)


def imports(path):
    """Modules of ours that a file imports; not those of its `if __name__ == "__main__"`."""
    tree = ast.parse((ROOT / path).read_text())
    body = [node for node in tree.body if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))]
    ours = {module(p) for p in PRODUCT}
    found = set()
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & ours
            found |= inside or {node.module}
    return {name for name in found if name in ours}


def edges():
    for path in PRODUCT:
        for other in imports(path):
            if room(other) != room(module(path)):
                yield module(path), other


def test_each_layer_imports_only_from_the_layers_above_it():
    wrong = [f"{name} -> {other}" for name, other in edges() if layer(other) >= layer(name)]
    assert not wrong, "\n".join(sorted(wrong))


def test_only_commands_import_the_configuration():
    wrong = [f"{name} -> {other}" for name, other in edges() if room(other) == "conf" and room(name) not in COMMANDS]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_two_rooms_import_each_other():
    pairs = {(room(name), room(other)) for name, other in edges()}
    assert not [pair for pair in pairs if pair[::-1] in pairs]


def test_no_import_runs_in_a_circle():
    needs = {module(path): imports(path) - {module(path)} for path in PRODUCT}
    while ready := [name for name, others in needs.items() if not others]:
        for name in ready:
            del needs[name]
        for others in needs.values():
            others -= set(ready)
    assert not needs, f"in circles, or standing on one: {sorted(needs)}"


def test_every_module_has_a_layer():
    named = {entry for line in LAYERS for entry in line}
    assert {room(module(path)) for path in PRODUCT} == named


def test_no_two_files_share_a_name():
    names = Counter(path.split("/")[-1] for path in TRACKED if path.endswith(".py"))
    shared = {name for name, count in names.items() if count > 1} - {"__init__.py"}
    assert {name for name in shared if not re.match(r"\d_", name)} == set()  # a lesson and its solutions


def test_the_root_tells_the_story():
    entries = {name.split("/")[0] for name in TRACKED if not name.startswith(".")}
    assert len([name for name in entries if name.endswith(".py")]) <= 12
    asked_for = (
        "conf loss dataset.py loader.py diffusion.py model.py train.py inference.py rerun_viz.py main.py tests"
        " requirements.txt README.md"
    )
    assert set(asked_for.split()) <= entries


def test_the_map_of_files_names_every_file_that_exists_and_no_other():
    text = (ROOT / "docs/architecture.md").read_text()
    map_of_files = text[text.index("## What each file is") :]
    for path in PRODUCT:
        name = path.split("/")[-1]
        if name != "__init__.py":
            assert f"`{name}`" in map_of_files, f"{path} is missing in docs/architecture.md"
    named = set(re.findall(r"`([\w/]+\.py)`", map_of_files))
    assert named <= set(PRODUCT) | {path.split("/")[-1] for path in PRODUCT}, named
