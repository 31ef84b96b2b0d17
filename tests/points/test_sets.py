"""Point sets: exact densities against closed forms, embedding, drawings and files."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from dataset import Normaliser, make_dataset, make_sets
from metrics.bayes import bayes_floor
from points.point_files import read_table
from schedule import LinearNoiseScheduler


def test_checkerboard_density_is_the_closed_form_and_its_draws_follow_it():
    # a smoothed square is a product of differences of normal distribution functions
    s, data = 0.03, make_dataset("checkerboard", 20_000, 0, noise=0.03)
    corners = [(i / 2 - 1, j / 2 - 1) for j in range(4) for i in range(4) if (i + j) % 2 == 0]
    x = data.points[:500].astype(float)
    squares = [
        np.prod(2 * (stats.norm.cdf((x - c) / s) - stats.norm.cdf((x - np.add(c, 0.5)) / s)), 1) for c in corners
    ]
    ours = data.mixture.log_density(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, np.log(np.mean(squares, 0)), atol=1e-8)
    edges = np.linspace(-1.25, 1.25, 26)
    mass = np.zeros((25, 25))
    for c in corners:
        grid = np.linspace(0, 0.5, 400, endpoint=False) + 0.5 / 800
        axis = [np.diff(stats.norm.cdf((edges[:, None] - c[k] - grid) / s).mean(1)) for k in (0, 1)]
        mass += np.outer(*axis) / 8
    counts = np.histogram2d(*data.points.T, [edges, edges])[0]
    full = mass * 20_000 > 5
    found, due = (np.append(a[full], 20_000 - a[full].sum()) for a in (counts, mass * 20_000))
    assert stats.chi2.sf(((found - due) ** 2 / np.maximum(due, 1)).sum(), full.sum()) > 1e-4


@pytest.mark.parametrize("dim", [2, 3, 64])
def test_an_embedded_set_is_the_flat_one_turned_with_noise_in_every_dimension(dim):
    flat, deep = (make_dataset("pinwheel", 4000, 1, noise=0.05, arms=5, embed=d) for d in (None, dim))
    x, c = flat.mixture.centres, deep.mixture.centres
    torch.testing.assert_close(c @ c.T, x @ x.T)  # lengths and angles stay
    at = flat.mixture.sample(50, torch.Generator().manual_seed(0))
    turned = at @ torch.linalg.lstsq(x, c).solution
    beside = -0.5 * (dim - 2) * np.log(2 * np.pi * 0.05**2)
    torch.testing.assert_close(deep.mixture.log_density(turned), flat.mixture.log_density(at) + beside)
    off = torch.from_numpy(deep.points).double() @ (torch.eye(dim) - torch.linalg.pinv(c) @ c).double()
    share = float(off.square().sum()) / (4000 * 0.05**2)  # chi-squared of 4000 (dim - 2) degrees
    assert share == pytest.approx(dim - 2, abs=5 * np.sqrt(2 * max(dim - 2, 1e-9) / 4000) + 1e-6)


def test_the_bayes_floor_of_an_embedded_set_is_shared_between_the_plane_and_the_noise():
    # beside the plane eps has the error of a Gaussian of variance s^2, 1 - sigma^2 / (alpha^2 s^2 + sigma^2)
    scheduler = LinearNoiseScheduler(50)
    flat, deep = (make_dataset("moons", 10, 0, noise=0.05, embed=d).mixture for d in (None, 8))
    beside = 1 - scheduler.sigma**2 / (scheduler.alpha**2 * 0.05**2 + scheduler.sigma**2)
    expected = (2 * bayes_floor(flat, scheduler) + 6 * float(beside.mean())) / 8
    assert bayes_floor(deep, scheduler) == pytest.approx(expected, rel=2e-3)


def test_fresh_embedded_points_lie_where_the_others_lie():
    one, other = (make_dataset("moons", 10, seed, noise=0.05, embed=5).mixture for seed in (0, 1))
    assert torch.equal(one.centres, other.centres)
    assert Normaliser.of(make_dataset("moons", 500, 0, noise=0.05, embed=5)).mean.shape == (5,)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("text", {"text": "  "}, "no letter"),
        ("text", {"text": "中"}, "font has no '中'"),
        ("text", {"text": "W" * 900}, "too long"),
        ("picture", {"path": None}, "needs dataset.path"),
        ("picture", {"path": "white.png"}, "no dark pixels"),
        ("picture", {"path": "empty.png"}, "not a picture"),
        ("s_curve", {"embed": 2}, "too small"),
    ],
)
def test_sets_that_cannot_be_drawn_are_refused(name, options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9), "white").save("white.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=sentence):
        make_dataset(name, 10, 0, noise=0.6, **options)


def test_a_picture_is_its_darkness(tmp_path):
    page = np.full((200, 400), 255, np.uint8)
    page[:100, :200], page[100:, 200:] = 0, 127
    Image.fromarray(page).save(tmp_path / "p.png")
    mixture = make_dataset("picture", 10, 0, noise=0.6, path=str(tmp_path / "p.png")).mixture
    left = mixture.centres[:, 0] < 0
    assert len(left) <= 4000 and bool((mixture.centres[left, 1] > -0.02).all())  # up is up
    assert float(mixture.weights[left].sum()) == pytest.approx(255 / (255 + 128), abs=0.02)


def test_files_come_back_with_their_labels(tmp_path):
    x, kinds = np.random.default_rng(0).normal(size=(60, 50)), ["b", "a", "c"] * 20
    rows = [",".join([*map(repr, row.tolist()), kind]) for row, kind in zip(x, kinds)]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([",".join([*(f"c{i}" for i in range(50)), "kind"]), *rows]))
    for label in ("kind", "50", "-1"):
        points, labels, names = read_table(str(path), label)
        np.testing.assert_allclose(points, x, rtol=1e-6)
        assert names == ["a", "b", "c"] and [names[i] for i in labels] == kinds
    np.savez(tmp_path / "x.npz", np.column_stack([x, np.arange(60) % 2]))
    train, unseen = make_sets("file", None, 0, path=str(tmp_path / "x.npz"), label="50")
    assert train.classes == unseen.classes == ["0", "1"] and (len(train), len(unseen)) == (48, 12)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    path, two = str(tmp_path / "x.csv"), str(tmp_path / "two.npz")
    np.savez(two, a=np.eye(3), b=np.eye(3))
    with pytest.raises(ValueError, match="single array, and holds a, b"):
        read_table(two)
    for text, label, sentence in [
        ("x,y\n1,2\n3,4", "z", "no column 'z'"),
        ("x,y\n1,\n3,4", None, "point 1 has nothing in column 1"),
        ("1,2,a\n3,x,b", "2", "'x', which is not"),
        ("1,2,a\n3,4,", "2", "without a label"),
    ]:
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            read_table(path, label)
