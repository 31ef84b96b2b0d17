"""Search for options by training: `python scripts/search.py runs/search lr=1e-3..3e-2 model.hidden=32,64 max_steps=300`

Ranges LOW..HIGH (whole numbers where both are; on a logarithmic scale where HIGH is at least ten times LOW) and
choices A,B,C are searched with Optuna's TPE (Watanabe 2023, arXiv 2304.11127); other options hold for every trial. A
trial is the training of train.py, in FOLDER/<number>; one that fails ends nothing. The search is one file,
FOLDER/search.log: give the same line again to go on, or several times at once, on machines that share the folder too.
It leaves search.csv and pictures; `python loss/report.py FOLDER` makes a page about all trials.
"""

import argparse
import csv
import math
import sys
import warnings
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
from conf.flags import to_overrides
from conf.messages import EXPECTED, sentence
from conf.store import checked, register
from conf.sweep import note_failure
from dataset import make_sets
from metrics.evaluation import figures_of
from runtime.atomic_file import atomic_file
from train import begin_or_resume
from training.startup_check import classes_to_learn

try:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage, journal
    from optuna.trial import FrozenTrial, TrialState
    from optuna.visualization import matplotlib as pictures
except ImportError:
    sys.exit("scripts/search.py needs Optuna: `pip install -r requirements/sweep.txt`")

Searched = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Searched]
FIGURE = "error of epsilon"
FACTS = ("loss", "seconds", "cpu_seconds")  # which metrics.json holds beside its figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the search")
    parser.add_argument("options", nargs="+", metavar="OPTION=VALUES", help="options of train.py, searched or fixed")
    what = f"of metrics.json, to be made small: a figure above its floor, or loss (default: {FIGURE})"
    parser.add_argument("--figure", default=FIGURE, help=what)
    parser.add_argument("--maximise", action="store_true", help="make it large instead, recall say")
    parser.add_argument("--cpu-seconds", type=float, default=math.inf, help="that a training may take (default: any)")
    parser.add_argument("--trials", type=int, default=20, help="trainings that this process begins (default: 20)")
    o = parser.parse_args()
    space, fixed = read_space(o.options)
    check(space, fixed, o.figure)
    study = opened(o.folder, o.maximise, [*o.options, o.figure, o.cpu_seconds])
    for _ in range(o.trials):
        run_trial(study, space, o.folder, fixed, o.figure, o.cpu_seconds)
    report(study, o.folder, o.figure)


def read_space(options: list[str]) -> tuple[Space, list[str]]:
    """What is searched, by the options' names, and the options that are fixed. ValueError: a range is none."""
    found = {name: searched(name, values) for name, _, values in (word.partition("=") for word in options)}
    space = {name: values for name, values in found.items() if values}
    if not space:
        raise ValueError("nothing is searched: give options a range, lr=1e-3..3e-2, or choices, model.hidden=32,64")
    return space, [word for word in options if word.split("=")[0] not in space]


def searched(name: str, values: str) -> Searched | None:
    """LOW..HIGH or A,B,C; None for a single value, or a list in brackets."""
    low, between, high = values.partition("..")
    if not between:
        return CategoricalDistribution(values.split(",")) if "," in values and values[0] != "[" else None
    for number, distribution in ((int, IntDistribution), (float, FloatDistribution)):
        with suppress(ValueError):
            least, most = number(low), number(high)
            if least < most < math.inf:
                return distribution(least, most, log=0 < 10 * least <= most)  # pyright: ignore (numbers of its kind)
    raise ValueError(f"{name}={low}..{high} is no range: write LOW..HIGH, two numbers, the smaller first")


def check(space: Space, fixed: list[str], figure: str = "loss") -> None:
    """Raises ValueError where train.py would refuse a choice or an end of a range, or not measure the figure."""
    ends = {n: [*d.choices] if isinstance(d, CategoricalDistribution) else [d.low, d.high] for n, d in space.items()}
    first, known = {name: values[0] for name, values in ends.items()}, [*FACTS]
    try:
        for name, values in ends.items():
            for value in values:
                checked(composed(fixed, {**first, name: value}))
        o = checked(composed(fixed, first))
        if o.eval_samples and figure not in known:
            data, unseen = make_sets(n_samples=o.num_samples, seed=o.seed, **asdict(o.dataset))
            known += figures_of(data, unseen, labelled=len(classes_to_learn(data, asdict(o))) > 0)
    except EXPECTED as error:
        raise ValueError(sentence("train", error)) from error
    if figure not in known:
        raise ValueError(f"--figure {figure!r} is not measured by this training; choose one of {', '.join(known)}")


def composed(fixed: list[str], searched: dict[str, Any]) -> DictConfig:
    register("train")
    with hydra.initialize(version_base="1.3", config_path=None):
        return hydra.compose("train", to_overrides([*fixed, *(f"{name}={value}" for name, value in searched.items())]))


def opened(folder: Path, maximise: bool, asked: list[object]) -> optuna.Study:
    """The search in the folder, which may have been begun and may be going on. ValueError: it is for something else."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(journal.JournalFileBackend(str(folder / "search.log")))
    direction = "maximize" if maximise else "minimize"
    name = " ".join(map(str, [direction, *asked]))
    for begun in {*optuna.get_all_study_names(storage)} - {name}:
        raise ValueError(f"{folder} holds another search ({begun}): go on with that one, or name another folder")
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction=direction)


def run_trial(study: optuna.Study, space: Space, parent: Path, fixed: list[str], figure: str, most: float) -> None:
    """Train with the options that Optuna proposes, and tell it what that came to."""
    trial = study.ask({**space})
    folder, words = parent / str(trial.number), " ".join(f"{name}={value}" for name, value in trial.params.items())
    try:
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save([*fixed, *words.split()], folder / ".hydra" / "overrides.yaml")
        OmegaConf.save(cfg := composed(fixed, trial.params), folder / ".hydra" / "config.yaml")
        with redirect_stdout(StringIO()):
            found = begin_or_resume(checked(cfg), folder, set())
        row = {**found, **found.get("figures", {})}[figure]
        value = row["value"] - row["floor"] if isinstance(row, dict) else row
        if not math.isfinite(value):
            raise ValueError(f"{figure} is {value}")
    except BaseException as error:  # what is expected ends this trial only
        study.tell(trial, state=TrialState.FAIL)
        if not isinstance(error, EXPECTED):
            raise
        note_failure(folder, sentence("train", error), in_file=True)
        return
    trial.set_user_attr("cpu_seconds", found["cpu_seconds"])
    if most < math.inf:
        trial.set_constraint("cpu_seconds", found["cpu_seconds"] - most)
    study.tell(trial, value)
    print(f"{trial.number:4d}  {words}: {figure} {value:.4g}, {found['cpu_seconds']:.1f} s of CPU", flush=True)


def report(study: optuna.Study, folder: Path, figure: str) -> None:
    """search.csv, the best trials first and then those over the limit; the best one in a line; Optuna's pictures."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    trials = sorted(study.trials, key=lambda t: (t.value is None, _over(t), sign * (t.value or 0)))
    names, text = list(dict.fromkeys(name for t in trials for name in t.params)), StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", figure, "cpu_seconds", *names])
    for t in trials:
        state = "over the limit" if _over(t) else t.state.name.lower()
        table.writerow([t.number, state, t.value, t.user_attrs.get("cpu_seconds"), *map(t.params.get, names)])
    with atomic_file(folder / "search.csv") as file:
        file.write(text.getvalue().encode())
    done = [t for t in trials if t.value is not None]
    if done and not _over(best := done[0]):
        words = " ".join(f"{name}={value}" for name, value in best.params.items())
        print(f"best of {len(done)} trials: {figure} {best.value:.4g} in {folder / str(best.number)} ({words})")
    else:
        print(f"no trial of {len(trials)} has ended within the limit")
    print(f"{folder / 'search.csv'}; `python loss/report.py {folder}` makes a page about all trials")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    for name in ("optimization_history", "param_importances", "slice") if len({t.value for t in done}) > 1 else ():
        axes = getattr(pictures, f"plot_{name}")(study, target_name=figure)
        drawn = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        drawn.savefig(folder / f"{name}.png", bbox_inches="tight")


def _over(t: FrozenTrial) -> bool:
    return any(value > 0 for value in t.constraints.values())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
