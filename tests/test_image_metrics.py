"""The judge of images: figures with known values, teeth, a real image is not bitten, and the kept judge."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from metrics import image_features
from metrics.image_features import FeatureClassifier, feature_classifier, features_of, train_classifier
from metrics.image_metrics import _accuracies, evaluate_images, frechet_distance, share_inside
from runtime.randomness import generator


class Images:
    """What the judge asks of an image set, of uint8 pixels (N, C, H, W)."""

    def __init__(self, pixels, labels, num_labels=10):
        self.pixels, self.labels, self.num_labels, self.dims = pixels, labels, num_labels, tuple(pixels.shape[1:])

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, rows):
        return self.pixels[rows].float() / 127.5 - 1, self.labels[rows]

    def part(self, rows):
        return Images(self.pixels[rows], self.labels[rows])


def digits():
    data = load_digits()
    pixels = torch.from_numpy((data.images * 255 / 16).round().astype(np.uint8))[:, None]
    return Images(pixels, torch.from_numpy(data.target)).part(torch.randperm(1797, generator=generator(0, "split")))


TRAIN, UNSEEN = digits().part(slice(360, None)), digits().part(slice(360))
FEW = digits().part(slice(200))  # for judges of whom nothing is asked


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the judge of the digits is kept, trained once."""
    folder = tmp_path_factory.mktemp("judges")
    feature_classifier(TRAIN, folder=folder)
    return folder


@pytest.fixture
def brief(monkeypatch):
    """Trainings of a few steps."""
    monkeypatch.setattr(image_features, "LEAST_SEEN", 600)


# ---------------------------------------------------------------- figures with known values


def gaussian_cloud(n, mean, factor, seed):
    return torch.randn(n, len(mean), generator=generator(seed, "test"), dtype=torch.float64) @ factor.T + mean


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    # one is isotropic, so that the root of the product is the root of the other covariance: not the sum of the traces
    mean, stretch = torch.tensor([0.5, 0.0, -1.0]).double(), torch.diag(torch.tensor([0.5, 1.0, 3.0]).double())
    a, b = gaussian_cloud(200_000, 0 * mean, torch.eye(3).double(), 0), gaussian_cloud(200_000, mean, stretch, 1)
    assert frechet_distance(a, b) == pytest.approx(1.25 + 0.5**2 + 0 + 2**2, rel=0.01)


def test_frechet_distance_is_scipys_and_symmetric():
    mixing = torch.randn(2, 8, 8, generator=generator(1, "test"), dtype=torch.float64)
    a, b = (gaussian_cloud(500, torch.full((8,), float(i)).double(), mixing[i], 2 + i) for i in range(2))
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [500, 5])  # five points in eight dimensions: singular covariances
def test_frechet_distance_to_itself_is_zero_and_a_shift_is_its_square(rows):
    a = gaussian_cloud(rows, torch.zeros(8).double(), torch.eye(8).double(), 5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 0.5) == pytest.approx(8 * 0.25, abs=1e-6)


def test_share_inside_balls_drawn_by_hand():
    cloud = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]]).double()  # radii to the third neighbour: 3, 2, 2, 3, 9
    points = torch.tensor([[-3.5], [-2.9], [2.5], [6.5], [18.9], [19.1]]).double()
    assert share_inside(points, cloud) == pytest.approx(4 / 6)
    assert share_inside(points, cloud, k=1) == pytest.approx(2 / 6)  # radii 1, 1, 1, 1, 7: only 2.5 and 6.5


def test_recall_sees_what_is_missing_and_precision_what_is_foreign():
    real = torch.cat([gaussian_cloud(300, torch.full((2,), m).double(), torch.eye(2).double(), 7) for m in (0.0, 50.0)])
    one, far = real[:300] + 1e-3, real + 500
    assert share_inside(one, real) == 1 and 0.45 < share_inside(real, one) < 0.55
    assert share_inside(far, real) == 0 and share_inside(real, far) == 0
    assert share_inside(real, real) == 1
    repeated = gaussian_cloud(20, torch.zeros(2).double(), torch.eye(2).double(), 8).repeat(15, 1)
    assert share_inside(real[:300], repeated) < 0.01


def test_floor_of_the_accuracy_is_binomial_and_knows_that_it_is_estimated():
    many, few = np.repeat([True, False], [9500, 500]), np.repeat([True, False], [95, 5])
    exact = (0.95 * 0.05 / 400) ** 0.5
    assert _accuracies(many, 400, 0).mean() == pytest.approx(0.95, abs=0.002)
    assert _accuracies(many, 400, 0).std() == pytest.approx(exact, rel=0.06)
    assert _accuracies(few, 400, 0).std() == pytest.approx(exact * 5**0.5, rel=0.1)  # 1 / 400 + 1 / 100
    assert 0 < _accuracies(np.ones(100, bool), 100, 0).std() < 0.02


# ---------------------------------------------------------------- teeth


N = 120


def judged_rows(samples, asked, folder, unseen=None):
    rows = evaluate_images(samples, asked, TRAIN, unseen or UNSEEN.part(slice(N, None)), folder=folder)
    return {row.name: row for row in rows}


def apart(rows):
    return {name for name, row in rows.items() if not row.passed}


def test_the_judge_knows_unseen_digits(folder, capsys):
    rows = judged_rows(*UNSEEN[torch.arange(N)], folder)
    assert rows["label accuracy"].floor > 0.955
    assert "of 240 unseen images right" in capsys.readouterr().out


def test_real_unseen_images_are_flagged_by_none_in_10_splits(folder):
    for seed in range(10):
        order = torch.randperm(len(UNSEEN), generator=generator(seed, "fresh"))
        rows = judged_rows(*UNSEEN[order[:N]], folder, UNSEEN.part(order[N:]))
        assert apart(rows) == set()
        assert [row.n for row in rows.values()] == [N] * 4


def noisy(x, y, g):
    return x + 0.8 * torch.randn(x.shape, generator=g), y


def class_missing(x, y, g):
    rows = (y != 4).nonzero()[:, 0]
    rows = rows[torch.randint(len(rows), (len(x),), generator=g)]
    return x[rows], y[rows]


def blurred(x, y, g):
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 0.7, 0.7))), y


def repeated(x, y, g):
    rows = torch.randint(20, (len(x),), generator=g)
    return x[rows], y[rows]


def swapped_labels(x, y, g):
    half = len(y) // 2
    return x, torch.cat([y[:half][torch.randperm(half, generator=g)], y[half:]])


# 120 digits are few: how often each class happens to come up alone moves the Frechet distance by a third. Hence the
# faults are coarse, and what each is surely seen by is named.
FAULTS = [
    (noisy, {"recall", "precision", "label accuracy"}),
    (class_missing, {"recall"}),
    (blurred, {"Frechet distance", "recall", "label accuracy"}),
    (repeated, {"recall"}),
    (swapped_labels, {"label accuracy"}),
]


@pytest.mark.parametrize(("fault", "seen_by"), FAULTS)
def test_faults_are_flagged(fault, seen_by, folder):
    for seed in range(3):
        rows = judged_rows(*fault(*UNSEEN[torch.arange(N)], generator(seed, "fault")), folder)
        assert seen_by <= apart(rows)
        assert not any("indistinguishable" in rows[name].verdict for name in apart(rows))
        if fault is swapped_labels:  # the images themselves are real
            assert apart(rows) == seen_by
        else:
            assert rows["Frechet distance"].value > rows["Frechet distance"].high


def test_sorted_samples_are_not_cut_off(folder):
    # n is half of the unseen images, far fewer than the samples: the first of them would all be zeros and ones
    order = TRAIN.labels.argsort()
    rows = evaluate_images(*TRAIN[order], TRAIN, UNSEEN, folder=folder)
    assert [row.n for row in rows] == [180, 180, 180, len(TRAIN)]
    assert all(row.passed for row in rows)


def test_no_label_accuracy_where_no_label_was_asked_for(folder):
    assert "label accuracy" not in judged_rows(UNSEEN[torch.arange(N)][0], None, folder)


def test_values_beyond_the_range_count_as_they_are_shown(folder):
    images, _ = UNSEEN[torch.arange(N)]
    beyond = torch.where(images == -1, -1.7, images)
    assert judged_rows(beyond, None, folder) == judged_rows(images, None, folder)


@pytest.mark.parametrize(
    ("samples", "asked", "words"),
    [
        (torch.full((N, 1, 8, 8), torch.nan), None, "NaN"),
        (torch.zeros(N, 1, 9, 8), None, r"shape \(N, 1, 8, 8\)"),
        (torch.zeros(N, 1, 8, 8, dtype=torch.uint8), None, "floats"),
        (torch.zeros(49, 1, 8, 8), None, "at least 50 samples"),
        (torch.zeros(N, 1, 8, 8), torch.zeros(3), "one label for each of 120"),
    ],
)
def test_bad_samples_are_named(samples, asked, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        evaluate_images(samples, asked, TRAIN, UNSEEN, folder=tmp_path)


@pytest.mark.parametrize("labels", [None, torch.zeros(200, dtype=torch.long)])
def test_images_without_classes_have_no_judge(labels, tmp_path):
    with pytest.raises(ValueError, match="needs labels"):
        feature_classifier(Images(FEW.pixels, labels, num_labels=1), folder=tmp_path)


# ---------------------------------------------------------------- the kept judge


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_training_is_a_function_of_data_and_seed(brief):
    state = torch.random.get_rng_state()
    first = train_classifier(FEW, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert same(first, train_classifier(FEW, seed=1)) and not same(first, train_classifier(FEW, seed=2))


def test_the_second_call_trains_nothing(brief, tmp_path, monkeypatch, capsys):
    first = feature_classifier(FEW, folder=tmp_path / "new" / "folder")
    assert "training a judge" in capsys.readouterr().out
    monkeypatch.setattr(image_features, "train_classifier", None)
    second = feature_classifier(FEW, folder=tmp_path / "new" / "folder")
    assert same(first, second) and not second.training and capsys.readouterr().out == ""


def test_other_data_has_another_judge(brief, tmp_path):
    pixels, labels = FEW.pixels.clone(), FEW.labels.clone()
    pixels[3, 0, 4, 4] += 1
    labels[3] = (labels[3] + 1) % 10
    for data, seed in [(FEW, 0), (FEW, 1), (Images(pixels, FEW.labels), 0), (Images(FEW.pixels, labels), 0)]:
        feature_classifier(data, seed=seed, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("place", [0, 30, 0.3, 0.5, 0.9, -22, "cut"])
def test_a_damaged_file_is_trained_anew(place, brief, tmp_path, capsys):
    first = feature_classifier(FEW, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if place == "cut":
        del content[1000:]
    else:
        content[int(place * len(content)) if isinstance(place, float) else place] ^= 0xFF
    path.write_bytes(content)
    capsys.readouterr()
    assert same(first, feature_classifier(FEW, folder=tmp_path))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "anew" in said
    feature_classifier(FEW, folder=tmp_path)
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_written_costs_only_the_file(brief, tmp_path, capsys):
    (tmp_path / "judges").write_text("a file")
    assert not feature_classifier(FEW, folder=tmp_path / "judges").training
    assert "could not be kept" in capsys.readouterr().out


@pytest.mark.parametrize("dims", [(1, 8, 8), (3, 28, 28), (3, 64, 48), (4, 9, 33)])
def test_any_size_has_64_features_of_variance_1(dims):
    net = FeatureClassifier(dims, 7).train()
    images = torch.rand(50, *dims, generator=generator(0, "test")) * 2 - 1
    torch.testing.assert_close(net(images)[0].var(0, correction=0), torch.ones(64), atol=0.05, rtol=0)
    features, told = features_of(net.eval(), images.split(20))
    assert features.shape == (50, 64) and features.dtype == torch.float64 and told.shape == (50,)
