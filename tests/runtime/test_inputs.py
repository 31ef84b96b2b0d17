"""Points, betas and checkpoints of every kind: the right answer, or one sentence before anything begins."""

import os

import numpy as np
import pytest
import torch
from conftest import command, succeeded

from dataset import Normaliser, make_sets, read_points
from diffusion import DiffusionModel
from metrics.forward import measured_statistics
from pipeline import Pipeline
from runtime import checkpoint_file
from runtime.arrays import floats, numbers
from schedule import LinearNoiseScheduler, VariancePreserving
from viz import stills

X = np.random.default_rng(0).normal(size=(200, 2)) * [2, 0.1]
CPU = torch.device("cpu")


@pytest.mark.parametrize("betas", [(0.5, 0.9), (0.9, 0.9), (0.08, 0.09), (1e-18, 1e-10), (1e-300, 1e-300)])
def test_betas_that_leave_no_signal_or_no_noise_are_refused(betas):
    with pytest.raises(
        ValueError, match=r"betas (are too large for 1000 steps: after \d+ nothing|must be .* from 1e-12)"
    ):
        LinearNoiseScheduler(1000, *betas)


@pytest.mark.parametrize(
    "scheduler",
    [LinearNoiseScheduler(1000, 1e-4, 0.15), VariancePreserving([1e-12] * 5)],
    ids=["large betas", "small betas"],
)
def test_betas_that_are_taken_work_in_float32(scheduler):
    assert bool((scheduler.alpha.float() ** -2).isfinite().all())
    assert bool((scheduler.sigma.float() > 0).all())


def test_the_smallest_betas_add_up_without_loss():
    sigma = VariancePreserving([1e-12] * 5).sigma
    torch.testing.assert_close(sigma, torch.arange(1, 6).double().mul(1e-12).sqrt(), rtol=1e-4, atol=0)


# ---------------------------------------------------------------- arrays

SAME = {
    "big-endian": X.astype(">f8"),
    "negative transitions": X[::-1][::-1],
    "every second": np.repeat(X, 2, 0)[::2],
    "Fortran order": np.asfortranarray(X),
    "read-only": np.frombuffer(X.tobytes()).reshape(X.shape),
    "list": X.tolist(),
}
REFUSED = {
    "text": np.array([["1", "2"], ["3", "4"]]),
    "bytes": np.array([[b"1", b"2"]]),
    "complex": X + 1j,
    "dates": np.array([["2026-01-01", "2026-01-02"]], "M8[D]"),
    "durations": np.array([[1, 2]], "m8[s]"),
    "objects": X.astype(object),
    "records": np.zeros((3, 2), [("a", "f8")]),
    "ragged": [[1.0, 2.0], [3.0]],
    "complex tensor": torch.zeros(3, 2, dtype=torch.complex64),
    "nothing": None,
}
if np.dtype(np.longdouble).itemsize > 8:  # elsewhere it is another name of float64
    REFUSED["long double"] = X.astype(np.longdouble)


@pytest.mark.parametrize("name", SAME)
def test_every_layout_of_the_same_numbers_is_read_alike(name):
    assert torch.equal(floats(SAME[name], "x"), torch.from_numpy(X))


@pytest.mark.parametrize("name", SAME)
def test_every_layout_of_the_same_numbers_is_noised_alike(name):
    noised = [DiffusionModel(10).forward_diffusion(x, 5)[0] for x in (np.asarray(SAME[name]), X)]
    assert np.array_equal(*noised)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_array_of_real_numbers_is_refused(name):
    with pytest.raises(ValueError, match=r"^x (must|has)"):
        numbers(REFUSED[name], "x")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_array_of_real_numbers_is_not_noised(name):
    with pytest.raises(ValueError, match=r"^data (must|has)"):
        DiffusionModel(10).forward_diffusion(REFUSED[name], 5)


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_no_integer_is_rounded(kind):
    big = np.array([[2**24 + 1, 1], [2**62, 3]])
    read = floats(big.astype(kind), "x")
    assert read.dtype == torch.float64
    assert read.tolist() == big.astype(float).tolist()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, ">i4", np.int8])
def test_integers_of_every_kind_are_steps_and_not_masks(kind):
    model = DiffusionModel(10)
    x_t = model.forward_diffusion(np.zeros((3, 2)), np.array([0, 1, 1], kind), np.ones((3, 2)))[0]
    assert x_t[:, 0].tolist() == model.scheduler.sigma[[0, 1, 1]].tolist()


# ---------------------------------------------------------------- files of points


def saved(folder, table):
    """The path of a file with this table."""
    np.save(folder / "x.npy", table)
    return str(folder / "x.npy")


@pytest.mark.parametrize("shift,scale", [(1e8, 1), (-3e12, 1e-2), (0, 1e60), (1e-9, 1e-12), (0, 1e-40), (5, 1)])
def test_points_far_away_large_or_small_are_normalised_as_if_they_were_not(shift, scale, tmp_path):
    data = read_points(saved(tmp_path, X * scale + shift), None, seed=0)
    plain = read_points(saved(tmp_path, X), None, seed=0)
    normaliser = Normaliser.fit_dataset(data)
    z, expected = normaliser.normalise(data[:][0]), Normaliser.fit_dataset(plain).normalise(plain[:][0])
    assert z.dtype == torch.float32
    lost = 1e-16 * abs(shift) / scale / 0.1  # by the person, who stored them in float64
    torch.testing.assert_close(z, expected, atol=1e-4 + 10 * lost, rtol=1e-3)
    back = normaliser.denormalise(z)
    np.testing.assert_allclose(
        back, data.points, atol=1e-3 * 0.1 * scale + 1e-6 * float(np.finfo(back.numpy().dtype).tiny)
    )


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.0, -7e8])
def test_a_constant_column_is_normalised_to_zero_and_comes_back_as_it_was(value):
    x = torch.cat([torch.randn(1001, 1), torch.full((1001, 1), value)], 1)
    normaliser = Normaliser.fit(x)
    z = normaliser.normalise(x)
    assert bool((z[:, 1] == 0).all())
    assert torch.equal(normaliser.denormalise(z)[:, 1], x[:, 1])


@pytest.mark.parametrize("table", [*[v for v in REFUSED.values() if isinstance(v, np.ndarray)],
                                   np.zeros((0, 2)), np.zeros((5, 0)), np.zeros(5), X * 1e300, X * np.nan])  # fmt: skip
def test_files_of_anything_else_are_refused_by_name(table, tmp_path):
    with pytest.raises(ValueError, match=r"x\.npy"):
        read_points(saved(tmp_path, table), None, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["", "x,y\n", "x,y\n1,2\n", "1,2\n3\n", "1,,2\n3,4,5\n", "1,a\n2,b\n", "1,nan\n1,2\n"])
def test_texts_of_anything_else_are_refused_by_name(text, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=r"x\.csv"):
        read_points(str(tmp_path / "x.csv"), None, 0)


def test_without_an_exact_density_the_evaluation_compares_with_fresh_draws():
    data, unseen = make_sets("moons", 1000, 0, noise=1e-3)
    assert (len(data), data.classes, unseen.classes) == (1000, ["0", "1"], ["0", "1"])
    assert not {tuple(row) for row in data.points} & {tuple(row) for row in unseen.points}


def printed_by_a_training(noise, folder):
    """What a short training on moons with so much noise prints."""
    words = "num_samples=600 max_steps=3 num_timesteps=4 eval_samples=100 model.hidden=8"
    return succeeded(f"train.py dataset.noise={noise} {words}", folder)


NO_DENSITY = "no exact density (their noise is too small for one): floors come from other real points"


@pytest.mark.slow
def test_training_with_too_little_noise_for_an_exact_density_says_so(tmp_path):
    assert NO_DENSITY in printed_by_a_training("0.001", tmp_path)


@pytest.mark.slow
def test_training_without_noise_does_not_speak_of_too_little(tmp_path):
    assert NO_DENSITY not in printed_by_a_training("0", tmp_path)


def test_too_few_samples_for_an_evaluation_are_refused_before_the_training(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(500, 2)))
    done = command("train.py dataset=file dataset.path=x.npy max_steps=3 eval_samples=10 task_name=run", tmp_path)
    assert done.returncode == 1
    assert "eval_samples=0 trains without" in done.stderr
    assert not (tmp_path / "run").exists()


def test_too_few_points_for_an_evaluation_are_learnt_without_one(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2)))
    printed = succeeded("train.py dataset=file dataset.path=x.npy max_steps=3 task_name=run", tmp_path)
    assert "there will be no evaluation: it needs 20 held-out rows, and there are 10" in printed


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """What the checkpoint of a training of two steps holds."""
    folder = tmp_path_factory.mktemp("small")
    line = "train.py num_samples=200 max_steps=2 num_timesteps=20 eval_samples=0 model.hidden=8 task_name=r"
    succeeded(line, folder)
    return checkpoint_file.load(folder / "r" / "last.pt")


def changed(state, key, value):
    """The same nested dictionary, with another value under the path `key`."""
    head, *rest = key
    return {**state, head: changed(state[head], rest, value) if rest else value}


PARTS = [("config",), ("classes",), ("normaliser",), ("normaliser", "mean"), ("normaliser", "std"), ("ema",),
         ("config", "model"), ("config", "num_timesteps"), ("config", "schedule"), ("config", "seed"),
         ("config", "model", "hidden"), ("config", "model", "prediction"),
         ("ema", "module.outputs.weight")]  # fmt: skip
WRONG = [None, "text", 7.5, [1, 2], {}, torch.full((2,), float("nan")), torch.zeros(3, 2, dtype=torch.int64), -1]


@pytest.mark.parametrize("key", PARTS, ids=".".join)
def test_a_checkpoint_with_a_wrong_part_is_refused_in_one_sentence(state, key, tmp_path):
    for i, wrong in enumerate(WRONG):
        path = tmp_path / f"{i}.pt"
        checkpoint_file.save(path, changed(state, key, wrong))
        if key == ("config", "seed") or (key == ("classes",) and wrong in ([], {})):
            continue
        with pytest.raises(ValueError, match=r"^the checkpoint"):
            Pipeline.load(path, "cpu")


WRONG_WEIGHTS = {
    "float64": lambda weights: weights.double(),
    "float16": lambda weights: weights.half(),
    "nan": lambda weights: weights * float("nan"),
    "int64": lambda weights: weights.to(torch.int64),
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_weights_of_another_type_or_with_nan_are_refused(state, kind, tmp_path):
    weights = WRONG_WEIGHTS[kind](state["ema"]["module.outputs.weight"])
    checkpoint_file.save(tmp_path / "x.pt", changed(state, ("ema", "module.outputs.weight"), weights))
    with pytest.raises(ValueError, match=r"module\.outputs\.weight (as|is not finite)"):
        Pipeline.load(tmp_path / "x.pt", "cpu")


def test_the_latest_checkpoint_is_loaded_by_that_word(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint yet below outputs or runs"):
        Pipeline.load("latest", "cpu")
    for i, name in enumerate(("b", "a")):
        path = tmp_path / "outputs" / "train" / name / "last.pt"
        path.parent.mkdir(parents=True)
        checkpoint_file.save(path, changed(state, ("config", "seed"), 70 + i))
        os.utime(path, (i, i))
    assert Pipeline.load("latest", "cpu").config["seed"] == 71


def test_a_checkpoint_without_weights_is_refused(state, tmp_path):
    checkpoint_file.save(tmp_path / "x.pt", {k: v for k, v in state.items() if k != "ema"})
    with pytest.raises(ValueError, match=r"it has no 'ema'"):
        Pipeline.load(tmp_path / "x.pt", "cpu")


@pytest.mark.filterwarnings("error")
def test_the_statistics_of_points_with_a_constant_coordinate_are_measured():
    data = np.c_[X, np.full(len(X), 0.1)]
    eps = np.random.default_rng(1).normal(size=(1, *data.shape))
    found = measured_statistics(data, 0.6 * data + 0.8 * eps)
    expected = 0.36 * data.var(0).sum() / (0.64 * 3)
    assert float(found["snr"][0]) == pytest.approx(expected, rel=0.3)  # 200 points: the sd is near 8 %


@pytest.mark.filterwarnings("error")
def test_one_point_is_drawn_without_a_warning():
    stills.samples(X[:1], X[:1]).canvas.draw()
