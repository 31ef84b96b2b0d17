"""Search for options by training.

`python scripts/search.py runs/search lr=1e-3..3e-2 model.hidden=32,64 max_steps=300` searches the
ranges LOW..HIGH and the choices A,B,C with Optuna's TPE (Watanabe 2023, arXiv 2304.11127). All
other options hold for every trial. A range is one of whole numbers where both ends are; its scale
is logarithmic where HIGH is at least ten times LOW.

A trial is a training by train.py, in FOLDER/<number>. One that fails, or whose process is killed,
ends nothing else. The search is the file FOLDER/search.log: give the same line again to go on, or
give it several times at once, also on machines that share the folder. It leaves search.csv and
pictures, and `python loss/report.py FOLDER` makes a page about all trials.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import csv
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from omegaconf import DictConfig, OmegaConf

from conf import script_parsers
from conf.flags import command_line
from conf.messages import EXPECTED, in_one_line, sentence
from conf.store import checked, composed
from conf.sweep import note_failure
from dataset import make_sets
from metrics.evaluation import figures_of
from registry.plugins import plugin_traceback
from runtime.atomic_file import atomic_file
from train import begin_or_resume
from training.startup_check import classes_to_learn
from viz import search_pictures as pictures
from viz import stills

try:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage, journal
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    sys.exit("scripts/search.py needs Optuna: `pip install -r requirements/sweep.txt`")

try:
    import fcntl
except ImportError:  # on Windows Optuna's own lock is used, and killed trials stay as they are
    fcntl: Any = None

Searched = CategoricalDistribution | FloatDistribution | IntDistribution
Space = dict[str, Searched]  # by the names of the options
FACTS = ("loss", "seconds", "cpu_seconds")  # numbers in metrics.json beside its figures
BEGIN_LOCK = ".search.lock"  # whoever begins a trial, or looks for killed ones, holds it
LOGARITHMIC_FROM = 10  # ratio of the ends of a range from which its scale is logarithmic


def main() -> None:
    args = script_parsers.search().parse_args()

    space, fixed = read_space(args.options)
    check(space, fixed, args.figure)
    study = opened(
        args.folder,
        args.maximise,
        [*args.options, args.figure, args.cpu_seconds],
    )
    for _ in range(args.trials):
        run_trial(study, space, args.folder, fixed, args.figure, args.cpu_seconds)
    report(study, args.folder, args.figure)


# ---------------------------------------------------------------- the space that is searched


def read_space(options: Sequence[str]) -> tuple[Space, list[str]]:
    """The searched options with their distributions, and the words of the fixed options.

    Raises:
        ValueError: a range has no two ends in order, or nothing is searched.
    """
    space: Space = {}
    fixed = []
    for word in options:
        name, _, values = word.partition("=")
        distribution = searched(name, values)
        if distribution is None:
            fixed.append(word)
        else:
            space[name] = distribution
    if not space:
        raise ValueError("nothing is searched: give options a range, lr=1e-3..3e-2, or choices, model.hidden=32,64")
    return space, fixed


def searched(name: str, values: str) -> Searched | None:
    """The distribution of LOW..HIGH or A,B,C; None for a single value or a list in brackets.

    Raises:
        ValueError: LOW and HIGH are not two numbers in order.
    """
    low, between, high = values.partition("..")
    if not between:
        is_choice = "," in values and values[0] != "["
        return CategoricalDistribution(values.split(",")) if is_choice else None

    with suppress(ValueError):
        least = int(low)
        most = int(high)
        if least < most:
            return IntDistribution(least, most, log=_is_logarithmic(least, most))
    with suppress(ValueError):
        least = float(low)
        most = float(high)
        if least < most < math.inf:
            return FloatDistribution(least, most, log=_is_logarithmic(least, most))
    raise ValueError(f"{name}={low}..{high} is no range: write LOW..HIGH, two numbers, the smaller first")


def _is_logarithmic(low: float, high: float) -> bool:
    return 0 < LOGARITHMIC_FROM * low <= high


def check(space: Space, fixed: Sequence[str], figure: str = "loss") -> None:
    """Check all choices and all ends of ranges as train.py does, and the figure.

    Raises:
        ValueError: train.py would refuse a value, or does not measure the figure.
    """
    values = {name: _extreme_values(distribution) for name, distribution in space.items()}
    first = {name: options[0] for name, options in values.items()}
    try:
        for name, options in values.items():
            for value in options:
                checked(trial_config(fixed, {**first, name: value}))
        known = _measured(checked(trial_config(fixed, first)), figure)
    except EXPECTED as error:
        raise ValueError(sentence("train", error)) from error
    if figure not in known:
        names = ", ".join(known)
        raise ValueError(f"--figure {figure!r} is not measured by this training; choose one of {names}")


def _extreme_values(distribution: Searched) -> list[Any]:
    """All choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def _measured(options: Any, figure: str) -> Sequence[str]:
    """The numbers that a training with these options measures.

    Figures need the data to be known.
    """
    known = [*FACTS]
    if options.eval_samples and figure not in known:
        data, unseen = make_sets(
            n_samples=options.num_samples,
            seed=options.seed,
            **asdict(options.dataset),
        )
        labelled = len(classes_to_learn(data, asdict(options))) > 0
        known += figures_of(data, unseen, labelled=labelled)
    return known


def trial_config(fixed: Sequence[str], proposed: dict[str, Any]) -> DictConfig:
    """The configuration of train.py with the fixed options and those that a trial proposes."""
    words = [f"{name}={value}" for name, value in proposed.items()]
    return composed("train", command_line([*fixed, *words]).overrides)


# ---------------------------------------------------------------- the journal


class Journal(journal.JournalFileBackend):
    """Optuna's journal, one operation a line, in a file that survives a kill at any moment.

    Whoever appends holds the lock of the file, which the kernel releases when the process ends.
    Optuna's lock is a file or a link, which a killed process leaves behind. What a killed process
    has written of a line is removed before the next line is appended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(str(path), journal.JournalFileOpenLock(str(path)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if not fcntl:
            super().append_logs(logs)
            return
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with _locked(self._path) as file:
            _remove_unfinished_line(file)
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the operations from that number on.

        Raises:
            ValueError: a line is damaged.
        """
        number = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                yield log
                number += 1
        except ValueError as error:  # also of JSON
            advice = "search in another folder"
            raise ValueError(f"{self._path} is damaged in line {number + 1}: {advice}") from error


def _remove_unfinished_line(file: BinaryIO) -> None:
    """Remove what stands behind the last end of a line."""
    end = file.seek(0, os.SEEK_END)
    begin = end
    while begin > 0:
        begin = max(0, begin - 4096)
        file.seek(begin)
        at = file.read(min(4096, end - begin)).rfind(b"\n")
        if at >= 0:
            begin += at + 1
            break
    if begin < end:
        file.truncate(begin)
    file.seek(0, os.SEEK_END)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open a file, which may be new, and hold its lock; wait while another process holds it.

    Some network file systems have no locks; nobody waits there.
    """
    with path.open("a+b") as file:
        if fcntl:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file


# ---------------------------------------------------------------- trials


def opened(folder: Path, maximise: bool, asked: Sequence[object]) -> optuna.Study:
    """The search in the folder, which may have begun before and may be going on elsewhere.

    asked: what the search is for. It names the search.

    Raises:
        ValueError: the folder holds another search, or a damaged one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(Journal(folder / "search.log"))
    direction = "maximize" if maximise else "minimize"
    name = " ".join(str(word) for word in (direction, *asked))
    for other in optuna.get_all_study_names(storage):
        if other != name:
            raise ValueError(f"{folder} holds another search ({other}): go on with that one, or name another folder")
    return optuna.create_study(
        storage=storage,
        study_name=name,
        load_if_exists=True,
        direction=direction,
    )


def run_trial(
    study: optuna.Study,
    space: Space,
    parent: Path,
    fixed: Sequence[str],
    figure: str,
    max_cpu_seconds: float,
) -> None:
    """Train with the options that Optuna proposes, and tell it the figure."""
    with ExitStack() as running:
        trial = _begin_trial(study, space, parent, running)
        _finish_trial(study, trial, parent, fixed, figure, max_cpu_seconds)


def _begin_trial(study: optuna.Study, space: Space, parent: Path, running: ExitStack) -> optuna.Trial:
    """Ask for the next trial. Its lock is held until `running` is closed, or this process ends."""
    with _locked(parent / BEGIN_LOCK):
        _fail_killed_trials(study, parent)
        trial = study.ask({**space})
        path = _trial_lock(parent, trial.number)
        running.callback(path.unlink, missing_ok=True)
        running.enter_context(_locked(path))
    return trial


def _trial_lock(parent: Path, number: int) -> Path:
    return parent / f".trial-{number}.lock"


def _fail_killed_trials(study: optuna.Study, parent: Path) -> None:
    """Mark the trials whose processes were killed as failed.

    The caller holds BEGIN_LOCK. No trial is therefore between its begin and its lock.
    """
    if not fcntl:
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        path = _trial_lock(parent, trial.number)
        if not _is_free(path):
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        path.unlink(missing_ok=True)
        folder = parent / str(trial.number)
        if folder.is_dir():
            note_failure(folder, "its process was killed", in_file=True)


def _is_free(path: Path) -> bool:
    """Whether no process holds the lock of a file; False where the file system has no locks."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _finish_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    parent: Path,
    fixed: Sequence[str],
    figure: str,
    max_cpu_seconds: float,
) -> None:
    """Train as the trial says; a failure is told to Optuna and noted in the folder of the trial."""
    folder = parent / str(trial.number)
    proposed = [f"{name}={value}" for name, value in trial.params.items()]
    try:
        (folder / ".hydra").mkdir(parents=True)
        results = _train(trial_config(fixed, trial.params), [*fixed, *proposed], folder)
        value = _figure_above_floor(results, figure)
    except BaseException as error:
        study.tell(trial, state=TrialState.FAIL)
        own_traceback = plugin_traceback(error)
        if own_traceback:
            print(own_traceback, file=sys.stderr)
        elif not isinstance(error, EXPECTED):
            raise
        note_failure(folder, sentence("train", error), in_file=True)
        return

    cpu_seconds = results["cpu_seconds"]
    trial.set_user_attr("cpu_seconds", cpu_seconds)
    if max_cpu_seconds < math.inf:
        trial.set_constraint("cpu_seconds", cpu_seconds - max_cpu_seconds)
    study.tell(trial, value)
    print(
        f"{trial.number:4d}  {_words(trial.params)}: {figure} {value:.4g}, {cpu_seconds:.1f} s of CPU",
        flush=True,
    )


def _train(cfg: DictConfig, typed: list[str], folder: Path) -> dict[str, Any]:
    """One training in silence, in a run folder as Hydra makes it; returns its results."""
    OmegaConf.save(typed, folder / ".hydra" / "overrides.yaml")
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    with redirect_stdout(StringIO()):
        return begin_or_resume(checked(cfg), folder, set())


def _figure_above_floor(results: dict[str, Any], figure: str) -> float:
    """The number to optimise. Raises ValueError where it is not finite."""
    row = {**results, **results.get("figures", {})}[figure]
    value = row["value"] - row["floor"] if isinstance(row, dict) else row
    if not math.isfinite(value):
        raise ValueError(f"{figure} is {value}")
    return value


# ---------------------------------------------------------------- the result


def report(study: optuna.Study, folder: Path, figure: str) -> None:
    """Write search.csv, print the best trial in a line, and save Optuna's pictures.

    The best trials come first; those over the limit of CPU seconds and those that failed come last.
    """
    trials = _best_first(study)
    _write_table(trials, folder / "search.csv", figure)

    done = [trial for trial in trials if trial.value is not None]
    if done and not _is_over_limit(done[0]):
        best = done[0]
        place = folder / str(best.number)
        print(f"best of {len(done)} trials: {figure} {best.value:.4g} in {place} ({_words(best.params)})")
    else:
        print(f"no trial of {len(trials)} has ended within the limit")
    page = f"`python loss/report.py {folder}` makes a page about all trials"
    print(f"{folder / 'search.csv'}; {page}")

    if len({trial.value for trial in done}) > 1:
        _save_plots(study, folder, figure)


def _words(params: dict[str, Any]) -> str:
    """The searched options of a trial for a reader; .hydra/overrides.yaml holds all digits."""
    return " ".join(f"{name}={pictures.short(value)}" for name, value in params.items())


def _best_first(study: optuna.Study) -> list[FrozenTrial]:
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1

    def order(trial: FrozenTrial) -> tuple[bool, bool, float]:
        value = 0.0 if trial.value is None else sign * trial.value
        return trial.value is None, _is_over_limit(trial), value

    return sorted(study.trials, key=order)


def _write_table(trials: Sequence[FrozenTrial], path: Path, figure: str) -> None:
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", figure, "cpu_seconds", *names])
    for trial in trials:
        state = "over the limit" if _is_over_limit(trial) else trial.state.name.lower()
        cpu_seconds = trial.user_attrs.get("cpu_seconds")
        values = [trial.params.get(name) for name in names]
        table.writerow([trial.number, state, trial.value, cpu_seconds, *values])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def _save_plots(study: optuna.Study, folder: Path, figure: str) -> None:
    """Save the values of all trials that have one: in their order, and along each option."""
    done = [trial for trial in study.trials if trial.value is not None]
    values = [trial.value for trial in done if trial.value is not None]
    names = list(dict.fromkeys(name for trial in done for name in trial.params))
    if not names:
        return
    options = {name: [trial.params.get(name) for trial in done] for name in names}
    logarithmic = [name for name in names if any(getattr(trial.distributions[name], "log", False) for trial in done)]
    maximise = study.direction == optuna.study.StudyDirection.MAXIMIZE

    stills.save(
        pictures.history([trial.number for trial in done], values, figure, maximise),
        folder / "optimization_history.png",
    )
    stills.save(pictures.slices(options, values, figure, logarithmic), folder / "slice.png")
    with suppress(ValueError, RuntimeError):  # too few trials
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study)
        stills.save(pictures.importances(shares, figure), folder / "param_importances.png")


def _is_over_limit(trial: FrozenTrial) -> bool:
    return any(excess > 0 for excess in trial.constraints.values())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(plugin_traceback(error) or in_one_line(error))
