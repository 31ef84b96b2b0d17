"""The lessons run as scripts and notebooks and agree with their exact answers; their checks know right from wrong."""

import ast
import math
import re
from itertools import pairwise

import pytest
import torch
from conftest import ROOT, command, not_blank

FOLDER = ROOT / "lessons"
LESSONS = sorted(path.name for path in FOLDER.glob("[0-9]_*.py"))


def test_there_are_six_of_a_readable_length():
    assert [name[0] for name in LESSONS] == list("123456")
    for name in LESSONS:
        _, text = (FOLDER / name).read_text().split("\n# ---\n", 1)
        assert 80 <= len([line for line in text.splitlines() if line]) <= 150, name


def test_no_result_stands_in_the_text():
    # a figure that is written down is wrong as soon as a default changes; those of the lessons are computed
    sources = re.compile(r"\d{4}\.\d{5}|section \d\.\d|# # \d\.")
    for name in LESSONS:
        text = [line for line in (FOLDER / name).read_text().splitlines()[13:] if line.startswith("# ")]
        assert not (found := [line for line in text if re.search(r"\d\.\d|\d ?%", sources.sub("", line))]), found


# ---------------------------------------------------------------- as scripts


def near(low, value, high):
    return low <= float(value) <= high


def agrees(name, said, text):
    """What a lesson measured, held against the exact answer that it printed beside it."""
    if name[0] in "125":
        assert float(said["measured"]) == pytest.approx(float(said["exact"]), rel=0.1)
    if name[0] == "5":
        assert float(said["claimed"]) > 3 * float(said["measured"])
    if name[0] == "3":  # after a few steps only: no network gets below the floor
        assert near(0.95 * float(said["exact floor"]), said["measured"], 1.2)
    if name[0] == "4":
        slopes = re.findall(r"order (\d), measured slope (\S+)", text)
        assert [order for order, _ in slopes] == ["1", "2", "3"]
        assert all(near(int(order) - 0.3, slope, int(order) + 0.3) for order, slope in slopes)
        ddim, adams = re.search(r"its error is (\S+), and that of Adams' method was (\S+)", text).groups()
        assert float(ddim) == pytest.approx(float(adams), rel=0.2)
    if name[0] == "6":
        assert said["best denoiser"] == said["exact, of the best denoiser"] == "1" and said["network"] == "0"


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_as_a_script(name, tmp_path):
    done = command([str(FOLDER / name)], tmp_path, LESSON_QUICK="1", PYTHONPATH="")  # finds moonwalk by itself
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(re.findall(r"^  (\S.*?) {2,}(\S.*)$", done.stdout, re.MULTILINE))
    assert said["your prediction"] == "none yet"
    agrees(name, said, done.stdout)
    for number, exercise in enumerate(solutions(name), 1):
        assert f"exercise {number}: not solved yet: nothing is written in {exercise} so far" in done.stdout
    pictures = [tmp_path / path for path in re.findall(r"^picture: (.*)$", done.stdout, re.MULTILINE)]
    assert pictures and all(map(not_blank, pictures))


# ---------------------------------------------------------------- exercises


def solutions(name):
    return [node.name for node in ast.parse((FOLDER / "solutions" / name).read_text()).body if hasattr(node, "args")]


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
    "best_guess": forgot_alpha,
    "floor_of_gaussian": lambda alpha, sigma, s: alpha**2 / (alpha**2 + sigma**2),  # right for s = 1
    "simple_loss": coefficients_along_the_wrong_axis,
    "weight_of_x0": lambda alpha, sigma: (sigma / alpha).square(),  # upside down
    "my_ddim": stopped_before_clean_data,
    "end_of_flow": lambda x_T, alpha_T, sigma_T, s: s * x_T,  # as if x_T had variance 1
    "claimed_gaussian": lambda w, m, v, V: (m, 1 / ((1 + w) / v - w / V)),  # as if the mean stayed
    "steered_eps": lambda eps_label, eps_none, scale: (1 + scale) * eps_label - scale * eps_none,  # scale for w
    "keep_within": lambda x_t, x_0, alpha, sigma: ((x_t - alpha * x_0) / sigma, x_0.clamp(-1, 1)),  # eps stays
    "drop_labels": lambda label, share, num_labels, g: label * (torch.rand(label.shape, generator=g) >= share),  # to 0
}


@pytest.mark.parametrize("name", LESSONS)
def test_a_check_fails_for_nothing_and_for_a_mistake_and_passes_for_the_solution(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    lesson, solved = definitions(FOLDER / name), definitions(FOLDER / "solutions" / name)
    assert len(solutions(name)) == 2
    for exercise in solutions(name):
        check = lesson[f"check_{exercise}"]
        with pytest.raises(NotImplementedError):
            check(lesson[exercise])
        with pytest.raises(AssertionError, match=r"\d"):  # and says by how much
            check(WRONG[exercise])
        check(solved[exercise])


def test_an_exercise_says_how_it_went_and_the_lesson_goes_on(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    lesson, solved = definitions(FOLDER / LESSONS[0]), definitions(FOLDER / "solutions" / LESSONS[0])
    for answer in (solved["jump"], WRONG["jump"], lambda a, b: a):
        lesson["attempt"](1, lesson["check_jump"], answer)
    right, wrong, broken = capsys.readouterr().out.splitlines()
    assert right == "exercise 1: solved"
    assert wrong.startswith("exercise 1: not solved yet: x_1 needs")
    assert broken.startswith("exercise 1: not solved yet: <lambda> ends in TypeError: ")


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


@pytest.mark.parametrize("name", ["1_noise.py", "4_samplers.py"])
def test_a_notebook_shows_its_pictures_and_can_be_solved(name, tmp_path, monkeypatch):
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("LESSON_QUICK", "1")
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    notebook = jupytext.reads(with_solutions(name), fmt="py:percent")
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "exercise 1: solved" in said and "exercise 2: solved" in said
    assert re.search(r"your prediction +0\.123\n", said)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not (FOLDER / "outputs").exists()
