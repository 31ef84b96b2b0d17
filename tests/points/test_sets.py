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

SQUARE = 0.5  # the side of a square of the checkerboard
CORNERS = [(i / 2 - 1, j / 2 - 1) for j in range(4) for i in range(4) if (i + j) % 2 == 0]
BLUR = 0.03  # the standard deviation of its noise


@pytest.fixture(scope="module")
def checkerboard():
    return make_dataset("checkerboard", 20_000, 0, noise=BLUR)


def test_the_density_of_the_checkerboard_is_the_closed_form(checkerboard):
    # The density of a blurred square is a product of differences of normal distribution functions.
    x = checkerboard.points[:500].astype(float)
    squares = []
    for corner in CORNERS:
        lower = stats.norm.cdf((x - corner) / BLUR)
        upper = stats.norm.cdf((x - np.add(corner, SQUARE)) / BLUR)
        squares.append(np.prod(2 * (lower - upper), 1))
    ours = checkerboard.mixture.log_density(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, np.log(np.mean(squares, 0)), atol=1e-8)


def test_draws_of_the_checkerboard_follow_its_density(checkerboard):
    # A chi-squared test at level 1e-4. All cells with few expected points count as one.
    edges = np.linspace(-1.25, 1.25, 26)
    mass = np.zeros((25, 25))
    for corner in CORNERS:
        grid = np.linspace(0, SQUARE, 400, endpoint=False) + SQUARE / 800
        axis = [np.diff(stats.norm.cdf((edges[:, None] - corner[k] - grid) / BLUR).mean(1)) for k in (0, 1)]
        mass += np.outer(*axis) / 8
    counts = np.histogram2d(*checkerboard.points.T, [edges, edges])[0]
    full = mass * 20_000 > 5
    found, expected = (np.append(a[full], 20_000 - a[full].sum()) for a in (counts, mass * 20_000))
    assert stats.chi2.sf(((found - expected) ** 2 / np.maximum(expected, 1)).sum(), full.sum()) > 1e-4


# ---------------------------------------------------------------- embedding in more dimensions


def flat_and_embedded(dim):
    """The pinwheel in the plane, and the same one embedded in `dim` dimensions."""
    return [make_dataset("pinwheel", 4000, 1, noise=0.05, arms=5, embed=d) for d in (None, dim)]


every_dimension = pytest.mark.parametrize("dim", [2, 3, 64])


@every_dimension
def test_embedding_keeps_lengths_and_angles(dim):
    flat, embedded = flat_and_embedded(dim)
    x, c = flat.mixture.centres, embedded.mixture.centres
    torch.testing.assert_close(c @ c.T, x @ x.T)


@every_dimension
def test_the_density_in_the_embedded_plane_is_the_flat_one_times_that_of_the_noise(dim):
    flat, embedded = flat_and_embedded(dim)
    at = flat.mixture.sample(50, torch.Generator().manual_seed(0))
    in_plane = at @ torch.linalg.lstsq(flat.mixture.centres, embedded.mixture.centres).solution
    log_density_of_noise = -0.5 * (dim - 2) * np.log(2 * np.pi * 0.05**2)
    expected = flat.mixture.log_density(at) + log_density_of_noise
    torch.testing.assert_close(embedded.mixture.log_density(in_plane), expected)


@every_dimension
def test_embedded_points_have_noise_in_every_dimension(dim):
    _, embedded = flat_and_embedded(dim)
    c = embedded.mixture.centres
    off = torch.from_numpy(embedded.points).double() @ (torch.eye(dim) - torch.linalg.pinv(c) @ c).double()
    # Off the plane, the sum of squares is chi-squared with 4000 (dim - 2) degrees of freedom.
    share = float(off.square().sum()) / (4000 * 0.05**2)
    assert share == pytest.approx(dim - 2, abs=5 * np.sqrt(2 * max(dim - 2, 1e-9) / 4000) + 1e-6)


def test_the_bayes_floor_of_an_embedded_set_is_the_mean_of_those_in_the_plane_and_of_the_noise():
    # Off the plane, eps has the error of a Gaussian with variance s^2: 1 - sigma^2 / (alpha^2 s^2 + sigma^2).
    scheduler = LinearNoiseScheduler(50)
    flat, embedded = (make_dataset("moons", 10, 0, noise=0.05, embed=d).mixture for d in (None, 8))
    off_plane = 1 - scheduler.sigma**2 / (scheduler.alpha**2 * 0.05**2 + scheduler.sigma**2)
    expected = (2 * bayes_floor(flat, scheduler) + 6 * float(off_plane.mean())) / 8
    assert bayes_floor(embedded, scheduler) == pytest.approx(expected, rel=2e-3)


def test_every_seed_embeds_points_in_the_same_plane():
    one, other = (make_dataset("moons", 10, seed, noise=0.05, embed=5).mixture for seed in (0, 1))
    assert torch.equal(one.centres, other.centres)


def test_the_normaliser_of_embedded_points_has_their_dimension():
    assert Normaliser.fit_dataset(make_dataset("moons", 500, 0, noise=0.05, embed=5)).mean.shape == (5,)


# ---------------------------------------------------------------- drawings and files


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("text", {"text": "  "}, "no letter"),
        ("text", {"text": "中"}, "has no 中; set dataset.font="),
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


@pytest.fixture(scope="module")
def picture_mixture(tmp_path_factory):
    """The distribution of a picture that is black at the upper left, grey at the lower right, and white elsewhere."""
    path = tmp_path_factory.mktemp("picture") / "p.png"
    page = np.full((200, 400), 255, np.uint8)
    page[:100, :200] = 0
    page[100:, 200:] = 127
    Image.fromarray(page).save(path)
    return make_dataset("picture", 10, 0, noise=0.6, path=str(path)).mixture


def test_the_upper_half_of_a_picture_becomes_positive_coordinates(picture_mixture):
    left = picture_mixture.centres[:, 0] < 0
    assert bool((picture_mixture.centres[left, 1] > -0.02).all())


def test_a_picture_becomes_at_most_4000_centres(picture_mixture):
    assert len(picture_mixture.centres) <= 4000


def test_the_weights_of_a_picture_are_its_darkness(picture_mixture):
    left = picture_mixture.centres[:, 0] < 0
    assert float(picture_mixture.weights[left].sum()) == pytest.approx(255 / (255 + 128), abs=0.02)


@pytest.fixture(scope="module")
def rows():
    """60 points with 50 coordinates, and a kind for each of them."""
    return np.random.default_rng(0).normal(size=(60, 50)), ["b", "a", "c"] * 20


@pytest.mark.parametrize("label", ["kind", "50", "-1"])
def test_a_table_is_read_with_its_labels(rows, label, tmp_path):
    x, kinds = rows
    lines = [",".join([*(f"c{i}" for i in range(50)), "kind"])]
    for row, kind in zip(x, kinds):
        lines.append(",".join([*map(repr, row.tolist()), kind]))
    (tmp_path / "x.csv").write_text("\n".join(lines))
    file = read_table(str(tmp_path / "x.csv"), label)
    np.testing.assert_allclose(file.points, x, rtol=1e-6)
    assert file.classes == ["a", "b", "c"]
    assert file.labels is not None
    assert [file.classes[i] for i in file.labels] == kinds


def test_an_array_is_read_with_its_labels_and_a_fifth_is_held_out(rows, tmp_path):
    x, _ = rows
    np.savez(tmp_path / "x.npz", np.column_stack([x, np.arange(60) % 2]))
    train, unseen = make_sets("file", None, 0, path=str(tmp_path / "x.npz"), label="50")
    assert train.classes == unseen.classes == ["0", "1"]
    assert (len(train), len(unseen)) == (48, 12)


def test_a_file_of_two_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.eye(3), b=np.eye(3))
    with pytest.raises(ValueError, match="single array, and holds a, b"):
        read_table(str(tmp_path / "two.npz"))


@pytest.mark.parametrize(
    ("text", "label", "sentence"),
    [
        ("x,y\n1,2\n3,4", "z", "no column 'z'"),
        ("x,y\n1,\n3,4", None, "1 row lacks a value, of 2; by column: y .1.; the first is row 1: .*missing=drop"),
        ("# a comment\n\nx,y\n1,2\n3,", None, "by column: y .1.; the first is row 2"),
        ("1,2\n3,", None, "by column: 1 .1.; the first is row 2"),
        ("1,2,a\n3,4,b\n5,x,a", "2", "the column 1 holds 'x' in row 3, which is not a number"),
        ("1,2\n3,inf", None, "the column 1 is infinite in row 2"),
        ("x,kind,y\n1,a,2\n3,b,4", None, "column kind holds text, .*'a' and 'b': leave it out .*label=kind"),
        ("1,a,2\n3,b,4", None, "the column 1 holds text, .* dataset.label=1"),
        ("x,kind,y\n1,a,b\n3,b,c", "kind", "the column y holds text, such as 'b' and 'c': leave it out"),
        ("x,y\n1,2\n\n3,4,5", None, "line 4 has 3 cells where line 2 has 2"),
        ("1,2,a\n3,4,", "2", "1 row lacks a value, of 2; by column: 2 .1."),
    ],
)
def test_tables_that_cannot_be_read_are_refused(text, label, sentence, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_table(str(tmp_path / "x.csv"), label)
