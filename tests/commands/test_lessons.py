"""The lessons run as scripts and notebooks and agree with their exact answers; their checks know right from wrong."""

import ast
import functools
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT, command, not_blank, succeeded

FOLDER = ROOT / "lessons"
LESSONS = sorted(path.name for path in FOLDER.glob("[0-9]_*.py"))


def test_there_are_six_lessons():
    assert [name[0] for name in LESSONS] == list("123456")


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_is_of_a_readable_length(name):
    _, text = (FOLDER / name).read_text().split("\n# ---\n", 1)
    assert 80 <= len([line for line in text.splitlines() if line]) <= 150


@pytest.mark.parametrize("name", LESSONS)
def test_no_result_stands_in_the_text_of_a_lesson(name):
    """A figure that is written down is wrong as soon as a default changes: a lesson computes its figures."""
    sources = re.compile(r"\d{4}\.\d{5}|section \d\.\d|# # \d\.")
    text = [line for line in (FOLDER / name).read_text().splitlines()[13:] if line.startswith("# ")]
    found = [line for line in text if re.search(r"\d\.\d|\d ?%", sources.sub("", line))]
    assert not found


# ---------------------------------------------------------------- as scripts


def near(low, value, high):
    return low <= float(value) <= high


FIGURE = r"^  (\S.*?) {2,}(\S.*)$"  # what a lesson prints as `  name   value`


class Script(NamedTuple):
    """A lesson that has been run as a script."""

    name: str
    folder: Path
    code: int
    printed: str
    errors: str

    @property
    def figures(self):
        """What the lesson printed as `  name   value`."""
        return dict(re.findall(FIGURE, self.printed, re.MULTILINE))


QUICK_LESSONS = ("1_noise.py", "2_best_denoiser.py")


def lesson(name):
    """A parameter of tests; the lessons that train a network are slow."""
    return pytest.param(name, marks=() if name in QUICK_LESSONS else pytest.mark.slow)


@pytest.fixture(
    scope="module",
    params=[lesson(name) for name in LESSONS],
)
def script(request, tmp_path_factory):
    """Each of the lessons, run as a script that has to find moonwalk by itself."""
    folder = tmp_path_factory.mktemp("lesson")
    done = command([str(FOLDER / request.param), "--show"], folder, LESSON_QUICK="1", PYTHONPATH="")
    return Script(request.param, folder, done.returncode, done.stdout, done.stderr)


def test_a_lesson_runs_as_a_script(script):
    assert (script.code, script.errors) == (0, "")


def test_a_lesson_shows_its_answers_without_a_prediction_if_it_is_asked_to(script):
    assert script.figures["your prediction"] == "none yet"


@pytest.mark.parametrize("name", LESSONS)
def test_without_a_prediction_a_script_ends_before_its_answers_and_says_how_to_go_on(name, tmp_path):
    printed = succeeded([str(FOLDER / name)], tmp_path)
    *_, place, way_on = printed.splitlines()
    assert place.startswith(f"Your prediction: write it into lessons/{name}, line ")
    assert way_on == f"To go on without a prediction: python lessons/{name} --show"
    assert "  your prediction" not in printed and not list(tmp_path.iterdir())


@pytest.fixture
def copied(tmp_path):
    """A folder that holds a copy of the lessons, in which a student may write, beside the modules of moonwalk."""
    for path in ROOT.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            (tmp_path / path.name).symlink_to(path)
    return Path(shutil.copytree(FOLDER, tmp_path / "lessons"))


@pytest.mark.parametrize(
    ("written", "shown"), [("1 - 0.3", "0.7"), ("'half'", "half (not a number, which the question asks for)")]
)
def test_a_script_names_the_prediction_that_is_written_and_does_not_ask_again(written, shown, copied, tmp_path):
    lesson = copied / LESSONS[0]
    text = lesson.read_text()
    lesson.write_text(text.replace("prediction = None", f"prediction = {written}"))
    line = text[: text.index("\nprediction = None")].count("\n") + 2
    done = command([str(lesson)], tmp_path, LESSON_QUICK="1", PYTHONPATH="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Your prediction: {written} (lessons/{LESSONS[0]}, line {line}).\n")
    assert "start the lesson again" not in done.stdout and "?" not in done.stdout
    assert dict(re.findall(FIGURE, done.stdout, re.MULTILINE))["your prediction"] == shown


def lessons(numbers):
    """For a test of the lessons with these numbers alone."""
    return pytest.mark.parametrize("script", [lesson(name) for name in LESSONS if name[0] in numbers], indirect=True)


def test_a_script_asks_its_question_first_and_says_where_to_answer(script):
    text = (FOLDER / script.name).read_text()
    line = text[: text.index("\nprediction = None")].count("\n") + 2
    asked, _ = script.printed.split("Your prediction:", 1)
    assert "?" in asked and not re.search(r"[*$`\\]", asked)
    assert f"lessons/{script.name}, line {line}" in script.printed


@pytest.mark.parametrize("name", LESSONS)
def test_a_title_of_a_figure_holds_no_markdown(name):
    titles = re.findall(r"title(?:=|\()f?(\".*?\")", (FOLDER / name).read_text())
    assert not [title for title in titles if "`" in title]


@lessons("1")
def test_the_warning_of_a_schedule_follows_a_line_that_says_which_schedule(script):
    before, _ = script.printed.split("x_T keeps", 1)
    assert before.splitlines()[-2].endswith("textbook betas of 1000:")


@lessons("36")
def test_a_lesson_that_trains_says_so_before_it_does(script):
    before, _ = script.printed.split("your prediction  ")
    assert re.search(r"^training on moons: \d+ steps$", before, re.MULTILINE)


@lessons("125")
def test_what_a_lesson_measures_is_the_exact_answer_beside_it(script):
    assert float(script.figures["measured"]) == pytest.approx(float(script.figures["exact"]), rel=0.1)


@lessons("3")
def test_after_a_few_steps_no_network_gets_below_the_exact_floor(script):
    assert near(0.95 * float(script.figures["exact floor"]), script.figures["measured"], 1.2)


@lessons("4")
def test_the_measured_orders_of_samplers_are_those_of_theory(script):
    slopes = re.findall(r"order (\d), measured slope (\S+)", script.printed)
    assert [order for order, _ in slopes] == ["1", "2", "3"]
    assert all(near(int(order) - 0.3, slope, int(order) + 0.3) for order, slope in slopes)


@lessons("4")
def test_as_many_steps_of_ddim_as_the_lesson_says_do_what_adams_method_did(script):
    ddim, adams = re.search(r"its error is (\S+), and that of Adams' method was (\S+)", script.printed).groups()
    assert float(ddim) == pytest.approx(float(adams), rel=0.2)


@lessons("5")
def test_the_claim_of_guidance_is_three_times_what_is_measured_at_least(script):
    assert float(script.figures["claimed"]) > 3 * float(script.figures["measured"])


@lessons("6")
def test_the_best_denoiser_memorises_images_and_a_network_does_not(script):
    assert script.figures["best denoiser"] == script.figures["exact, of the best denoiser"] == "1"
    assert script.figures["network"] == "0"


def test_a_lesson_names_the_exercises_that_are_not_solved_yet(script):
    for number, exercise in enumerate(solutions(script.name), 1):
        said = f"exercise {number}: not solved yet: nothing is written in {exercise} so far"
        assert said in script.printed


def test_a_lesson_draws_pictures(script):
    pictures = [script.folder / path for path in re.findall(r"^picture: (.*)$", script.printed, re.MULTILINE)]
    assert pictures and all(map(not_blank, pictures))


# ---------------------------------------------------------------- exercises


def solutions(name):
    return [node.name for node in ast.parse((FOLDER / "solutions" / name).read_text()).body if hasattr(node, "args")]


@functools.cache
def definitions(path):
    """The functions of a file, without the rest of it having run."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    names = {"__name__": path.stem}
    exec(compile(tree, path, "exec"), names)
    return names


def forgot_to_shrink_the_old_noise(alpha_s, sigma_s, alpha_t, sigma_t):
    return alpha_t / alpha_s, math.sqrt(sigma_t**2 - sigma_s**2)


def forgot_the_first_step(alpha_bar):
    return 1 - alpha_bar / torch.cat([alpha_bar[:1], alpha_bar[:-1]])


def forgot_alpha(x_t, points, alpha, sigma):
    return torch.softmax(-(x_t[:, None] - points).square().sum(2) / (2 * sigma**2), 1) @ points


def coefficients_along_the_wrong_axis(net, scheduler, x_0, t, eps):
    x_t = scheduler.alpha[t].float() * x_0 + scheduler.sigma[t].float() * eps
    return (net(x_t, t) - eps).square().mean()


def stopped_before_clean_data(denoise, scheduler, x, timesteps):
    for t, s in pairwise(timesteps):
        (alpha, sigma), (eps, x_0) = scheduler.alpha_sigma_at(s), denoise(x, torch.tensor(t))
        x = alpha * x_0 + sigma * eps
    return x


WRONG = {
    "jump": forgot_to_shrink_the_old_noise,
    "betas_of": forgot_the_first_step,
    "best_prediction": forgot_alpha,
    "floor_of_gaussian": lambda alpha, sigma, s: alpha**2 / (alpha**2 + sigma**2),  # right for s = 1
    "simple_loss": coefficients_along_the_wrong_axis,
    "weight_of_x0": lambda alpha, sigma: (sigma / alpha).square(),  # upside down
    "my_ddim": stopped_before_clean_data,
    "end_of_flow": lambda x_T, alpha_T, sigma_T, s: s * x_T,  # as if x_T had variance 1
    "claimed_gaussian": lambda w, m, v, V: (m, 1 / ((1 + w) / v - w / V)),  # as if the mean stayed
    "guided_eps": lambda eps_label, eps_none, scale: (1 + scale) * eps_label - scale * eps_none,  # scale for w
    "keep_within": lambda x_t, x_0, alpha, sigma: ((x_t - alpha * x_0) / sigma, x_0.clamp(-1, 1)),  # eps stays
    "drop_labels": lambda label, share, num_labels, g: label * (torch.rand(label.shape, generator=g) >= share),  # to 0
}


EXERCISES = [(name, exercise) for name in LESSONS for exercise in solutions(name)]
EACH_EXERCISE = pytest.mark.parametrize(("name", "exercise"), EXERCISES)


@pytest.fixture
def importable(monkeypatch):
    """Lets a lesson import its neighbours, as it does where it is run as a script."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_two_exercises(name):
    assert len(solutions(name)) == 2


@EACH_EXERCISE
def test_an_exercise_that_is_not_written_yet_does_not_pass_its_check(name, exercise, importable):
    lesson = definitions(FOLDER / name)
    with pytest.raises(NotImplementedError):
        lesson[f"check_{exercise}"](lesson[exercise])


@EACH_EXERCISE
def test_a_likely_mistake_does_not_pass_the_check_which_says_by_how_much_it_is_off(name, exercise, importable):
    lesson = definitions(FOLDER / name)
    with pytest.raises(AssertionError, match=r"\d"):
        lesson[f"check_{exercise}"](WRONG[exercise])


@EACH_EXERCISE
def test_the_solution_of_an_exercise_passes_its_check(name, exercise, importable):
    solved = definitions(FOLDER / "solutions" / name)
    definitions(FOLDER / name)[f"check_{exercise}"](solved[exercise])


@pytest.mark.parametrize(
    ("answer", "beginning"),
    [
        ("right", "exercise 1: solved"),
        ("wrong", "exercise 1: not solved yet: x_1 needs"),
        ("broken", "exercise 1: not solved yet: <lambda> ends in TypeError: "),
    ],
)
def test_an_exercise_says_how_it_went_and_the_lesson_goes_on(answer, beginning, importable, capsys):
    lesson = definitions(FOLDER / LESSONS[0])
    answers = {
        "right": definitions(FOLDER / "solutions" / LESSONS[0])["jump"],
        "wrong": WRONG["jump"],
        "broken": lambda a, b: a,
    }
    lesson["attempt"](1, lesson["check_jump"], answers[answer])
    printed = capsys.readouterr().out
    assert printed.startswith(beginning) and printed.count("\n") == 1
    assert answer != "right" or printed == "exercise 1: solved\n"


# ---------------------------------------------------------------- as notebooks


def with_solutions(name):
    """The text of a lesson as a student would have it in the end: a prediction made, the exercises solved."""
    text, source = (FOLDER / name).read_text(), (FOLDER / "solutions" / name).read_text()
    answers = {n.name: ast.get_source_segment(source, n) for n in ast.parse(source).body if hasattr(n, "args")}
    exercises = [node for node in ast.parse(text).body if getattr(node, "name", None) in answers]
    for untouched, name in [(ast.get_source_segment(text, node), node.name) for node in exercises]:
        text = text.replace(untouched, answers[name])
    return text.replace("prediction = None", "prediction = 0.123")


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_is_a_notebook(name):
    jupytext, nbformat = pytest.importorskip("jupytext"), pytest.importorskip("nbformat")
    text = (FOLDER / name).read_text()
    notebook = jupytext.reads(text, fmt="py:percent")
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith(f"# {name[0]}. ")
    version = re.compile("jupytext_version: .*")
    assert version.sub("", jupytext.writes(notebook, fmt="py:percent")) == version.sub("", text)


@pytest.fixture(scope="module", params=["1_noise.py", "4_samplers.py"])
def outputs(request, tmp_path_factory):
    """The outputs of all cells of a lesson with its solutions, run as a notebook."""
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    folder = str(tmp_path_factory.mktemp("jupyter"))
    notebook = jupytext.reads(with_solutions(request.param), fmt="py:percent")
    resources = {"metadata": {"path": str(FOLDER)}}
    client = nbclient.NotebookClient(
        notebook, timeout=None, startup_timeout=1800, kernel_name="python3", resources=resources
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESSON_QUICK", "1")
        for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(variable, folder)
        client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def said(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
def test_the_exercises_can_be_solved_in_a_notebook(outputs):
    assert "exercise 1: solved" in said(outputs) and "exercise 2: solved" in said(outputs)


@pytest.mark.slow
def test_a_notebook_shows_the_prediction_of_its_reader(outputs):
    assert re.search(r"your prediction +0\.123\n", said(outputs))


@pytest.mark.slow
def test_a_notebook_shows_its_pictures_and_leaves_no_files(outputs):
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not (FOLDER / "outputs").exists()
