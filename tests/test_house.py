"""The house: who may import whom, what stands at the root, how long functions and modules are."""

import ast
import re
import statistics
import subprocess

from conftest import ROOT

PRODUCT = [
    path for path in subprocess.check_output(["git", "ls-files", "*.py"], cwd=ROOT, text=True).split()
    if not path.startswith("tests/")
]  # fmt: skip
GROUND = (
    "runtime.randomness",
    "runtime.device",
    "runtime.processes",
    "runtime.progress",
    "runtime.checkpoint",
    "runtime.moments",
    "runtime.arrays",
    "runtime.whole_file",
)

# From the ground up: each may import what stands in the lines above its own, and its own room or line.
FLOORS = [
    ("conf",),
    ("nets",),
    GROUND,
    ("samplers.spacing",),
    ("points.mixture", "schedule"),
    ("diffusion",),
    ("loss.objective",),
    ("samplers",),
    ("sampler",),
    ("steering",),
    ("images",),
    ("points",),
    ("dataset", "loader", "model"),
    ("loss.log", "loss.runs"),
    ("runtime.trained",),
    ("metrics",),
    ("viz",),
    ("rerun_viz",),
    ("runtime",),  # what watches a training, and the looks at it before it begins
    ("train", "inference", "evaluate", "compare", "main", "loss"),
    ("scripts", "lessons"),
]
# Import nothing of ours but the ground and their own room; conf and nets not even that.
ALONE = {"conf", "nets", "points.mixture", "schedule"}


def module(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def floor(name):
    """The first line that holds a module or its room."""
    rooms = {name, name.split(".")[0]}
    exact = [i for i, names in enumerate(FLOORS) if name in names]
    return exact[0] if exact else next(i for i, names in enumerate(FLOORS) if rooms & set(names))


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


def test_nobody_imports_upwards():
    wrong = []
    for path in PRODUCT:
        name = module(path)
        for other in imports(path):
            same_room = name.split(".")[0] == other.split(".")[0] and floor(name) == floor(other)
            if name in ("train", "inference", "evaluate", "compare", "main") or name.startswith(("scripts.", "loss.")):
                if other.split(".")[0] == "conf":
                    continue
            elif other.split(".")[0] == "conf" and not name.startswith("conf"):
                wrong.append(f"{name} -> {other}: configuration stops at the commands")
            alone = name if name in ALONE else name.split(".")[0]
            if alone in ALONE and other.split(".")[0] != alone and other not in (*GROUND, "samplers.spacing"):
                wrong.append(f"{name} -> {other}: imports nothing of ours")
            if floor(other) > floor(name) or (floor(other) == floor(name) and not same_room):
                wrong.append(f"{name} -> {other}: upwards")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_no_import_runs_in_a_circle():
    above = {module(path): imports(path) - {module(path)} for path in PRODUCT}
    while free := [name for name, needs in above.items() if not needs]:
        for name in free:
            del above[name]
        for needs in above.values():
            needs -= set(free)
    assert not above, f"in circles, or standing on one: {sorted(above)}"


def test_the_root_tells_the_story():
    names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    entries = {name.split("/")[0] for name in names if not name.startswith(".")}
    assert len(entries) <= 31, sorted(entries)
    assert len([name for name in entries if name.endswith(".py")]) <= 12


def functions():
    for path in PRODUCT:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_and_modules_stay_short():
    lengths = dict(functions())
    assert {name: n for name, n in lengths.items() if n > 60} == {}
    assert statistics.median(lengths.values()) <= 8
    assert {path: n for path in PRODUCT if (n := len((ROOT / path).read_text().splitlines())) > 320} == {}
    assert len((ROOT / "train.py").read_text().splitlines()) <= 150


def test_the_readme_names_every_file_that_exists_and_no_other():
    text = (ROOT / "README.md").read_text()
    map_of_files = text[text.index("## What each file is") :]
    for path in PRODUCT:
        name = path.split("/")[-1]
        if name != "__init__.py" and not path.startswith("viz/recording/"):
            assert f"`{name}`" in map_of_files, f"{path} is missing in README"
    named = set(re.findall(r"`([\w/]+\.py)`", map_of_files))
    assert named <= set(PRODUCT) | {p.split("/")[-1] for p in PRODUCT}, named
