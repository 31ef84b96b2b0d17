"""Search for options by training: `python scripts/search.py runs/search lr=1e-3..3e-2 model.hidden=32,64 max_steps=300`

Ranges LOW..HIGH (whole numbers where both are; on a logarithmic scale where HIGH is at least ten times LOW) and
choices A,B,C are searched with Optuna's TPE (Watanabe 2023, arXiv 2304.11127); other options hold for every trial. A
trial is a `python train.py` of its own, in FOLDER/<number>; one that fails ends nothing. The search is one file,
FOLDER/search.log: give the same line again to go on, or several times at once, on machines that share the folder too.
It leaves search.csv and pictures; `python loss/report.py FOLDER` makes a page about all trials.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import warnings
from io import StringIO
from pathlib import Path

import hydra
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
from conf.entry import EXPECTED, checked, sentence
from conf.flags import to_overrides
from conf.store import register
from conf.sweep import ERROR
from runtime.whole_file import whole_file

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as pictures
except ImportError:
    sys.exit("scripts/search.py needs Optuna: `pip install -r requirements/sweep.txt`")

ROOT = Path(__file__).resolve().parent.parent
Space = dict[str, BaseDistribution]
FIGURE = "error of epsilon"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the search")
    parser.add_argument("options", nargs="+", metavar="OPTION=VALUES", help="options of train.py, searched or fixed")
    what = f"of metrics.json, to be made small: a figure above its floor, or loss (default: {FIGURE})"
    parser.add_argument("--figure", default=FIGURE, help=what)
    parser.add_argument("--maximise", action="store_true", help="make it large instead, recall say")
    parser.add_argument("--cpu-seconds", type=float, help="that a training may take (default: any number)")
    parser.add_argument("--trials", type=int, default=20, help="trainings that this process begins (default: 20)")
    o = parser.parse_args()
    space, fixed = read_space(o.options)
    check(space, fixed)
    study = opened(o.folder, o.maximise, [*o.options, o.figure, o.cpu_seconds])
    for _ in range(o.trials):
        run_trial(study, study.ask(space), o.folder, fixed, o.figure, o.cpu_seconds)
    report(study, o.folder, o.figure)


def read_space(options: list[str]) -> tuple[Space, list[str]]:
    """What is searched, by the options' names, and the options that are fixed.

    Raises:
        ValueError: nothing is searched, or a range is none.
    """
    space: Space = {}
    for name, _, values in (word.partition("=") for word in options):
        if ".." in values:
            space[name] = _range(name, *values.split("..", 1))
        elif "," in values and not values.startswith("["):
            space[name] = CategoricalDistribution(values.split(","))
    if not space:
        raise ValueError("nothing is searched: give options a range, lr=1e-3..3e-2, or choices, model.hidden=32,64")
    return space, [word for word in options if word.split("=")[0] not in space]


def _range(name: str, low: str, high: str) -> BaseDistribution:
    try:
        whole = low.lstrip("-").isdecimal() and high.lstrip("-").isdecimal()
        least, most = (int(low), int(high)) if whole else (float(low), float(high))
    except ValueError:
        least, most = 0, 0
    if not least < most < math.inf:
        raise ValueError(f"{name}={low}..{high} is no range: write LOW..HIGH, two numbers, the smaller first")
    log = 0 < 10 * least <= most
    return IntDistribution(int(least), int(most), log=log) if whole else FloatDistribution(least, most, log=log)


def check(space: Space, fixed: list[str]) -> None:
    """Raises ValueError, with the sentence of train.py, where it would refuse a choice or an end of a range."""
    register("train")
    ends = {
        name: [*d.choices] if isinstance(d, CategoricalDistribution) else [d.low, d.high]  # pyright: ignore
        for name, d in space.items()
    }
    first = {name: values[0] for name, values in ends.items()}
    with hydra.initialize(version_base="1.3", config_path=None):
        for name, values in ends.items():
            for value in values:
                words = [*fixed, *(f"{n}={v}" for n, v in {**first, name: value}.items())]
                try:
                    checked(hydra.compose("train", to_overrides(words)))
                except EXPECTED as error:
                    raise ValueError(sentence("train", error)) from error


def opened(folder: Path, maximise: bool, asked: list[object]) -> optuna.Study:
    """The search in the folder, which may have been begun and may be going on.

    Raises:
        ValueError: a search for something else was begun there.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "search.log")))
    direction = "maximize" if maximise else "minimize"
    study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True, direction=direction)
    words = " ".join(map(str, [direction, *asked]))
    if (begun := study.user_attrs.get("asked", words)) != words:
        raise ValueError(f"{folder} holds another search ({begun}): go on with that one, or name another folder")
    study.set_user_attr("asked", words)
    return study


# ---------------------------------------------------------------- a trial


def run_trial(
    study: optuna.Study, trial: optuna.Trial, folder: Path, fixed: list[str], figure: str, most: float | None
) -> None:
    """Train with the options that Optuna proposes, and tell it what that came to."""
    words = [f"{name}={value}" for name, value in trial.params.items()]
    try:
        value, seconds = train(folder / str(trial.number), [*fixed, *words], figure)
    except ValueError as error:
        study.tell(trial, state=TrialState.FAIL)
        print(f"{trial.number:4d}  {' '.join(words)} failed: {error}", flush=True)
        return
    except BaseException:  # Ctrl-C, or there is no such figure
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr("cpu_seconds", seconds)
    if most is not None:
        trial.set_constraint("cpu_seconds", seconds - most)
    study.tell(trial, value)
    print(f"{trial.number:4d}  {' '.join(words)}: {figure} {value:.4g}, {seconds:.1f} s of CPU", flush=True)


def train(folder: Path, words: list[str], figure: str) -> tuple[float, float]:
    """The figure, above its floor if it has one, and the seconds of CPU of a training in a process of its own.

    Raises:
        ValueError: it failed; the sentence that it said also stands in the folder.
    """
    line = [sys.executable, str(ROOT / "train.py"), *words, f"task_name={folder}"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        killed = f"train.py was killed by signal {-done.returncode}"
        why = killed if done.returncode < 0 else (done.stderr.strip() or "train.py failed").splitlines()[-1]
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(words, folder / ".hydra" / "overrides.yaml")
        (folder / ERROR).write_text(f"{why}\n", encoding="utf-8")
        raise ValueError(why)
    found = json.loads((folder / "metrics.json").read_bytes())
    known = {**{name: found[name] for name in ("loss", "seconds", "cpu_seconds")}, **found.get("figures", {})}
    if figure not in known:
        sys.exit(f"--figure {figure!r} is not measured by this training; choose one of {', '.join(known)}")
    row = known[figure]
    value = row["value"] - row["floor"] if isinstance(row, dict) else row
    if not math.isfinite(value):
        raise ValueError(f"{figure} is {value}")
    return value, found["cpu_seconds"]


# ---------------------------------------------------------------- what it leaves


def report(study: optuna.Study, folder: Path, figure: str) -> None:
    """search.csv, the best trials first and then those over the limit; the best one in a line; pictures."""
    trials = sorted(study.trials, key=lambda t: _place(t, study.direction == optuna.study.StudyDirection.MAXIMIZE))
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", figure, "cpu_seconds", *names])
    for t in trials:
        state = "over the limit" if _over(t) else t.state.name.lower()
        seconds = t.user_attrs.get("cpu_seconds", "")
        table.writerow([t.number, state, "" if t.value is None else t.value, seconds, *map(t.params.get, names)])
    with whole_file(folder / "search.csv") as file:
        file.write(text.getvalue().encode())
    done = [t for t in trials if t.state is TrialState.COMPLETE]
    if done and not _over(done[0]):
        best = " ".join(f"{name}={value}" for name, value in done[0].params.items())
        print(f"best of {len(done)} trials: {figure} {done[0].value:.4g} in {folder / str(done[0].number)} ({best})")
    else:
        print(f"no trial of {len(trials)} has ended within the limit")
    print(f"{folder / 'search.csv'}; `python loss/report.py {folder}` makes a page about all trials")
    if len({t.value for t in done}) > 1:
        save_pictures(study, folder, figure)


def _over(t: optuna.trial.FrozenTrial) -> bool:
    return any(value > 0 for value in t.constraints.values())


def _place(t: optuna.trial.FrozenTrial, maximise: bool) -> tuple[bool, bool, float]:
    value = 0.0 if t.value is None else t.value
    return t.state is not TrialState.COMPLETE, _over(t), -value if maximise else value


def save_pictures(study: optuna.Study, folder: Path, label: str) -> None:
    """Optuna's own: how the search went on, which options matter, and the figure over each option."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for name in ("optimization_history", "param_importances", "slice"):
        axes = getattr(pictures, f"plot_{name}")(study, target_name=label)
        figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        figure.savefig(folder / f"{name}.png", bbox_inches="tight")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
