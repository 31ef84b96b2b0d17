"""Image metrics: known values, faults that are flagged, real images that are not, and the saved feature classifier.

No outcome depends on the bits of a training: faults are measured with a fixed network, whose filters are random and
whose last layer is the solution of a linear system. Of a trained one only its accuracy is asked, with a wide margin.
"""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from images.sets import ImageSet
from metrics import image_features
from metrics.image_features import FeatureClassifier, feature_classifier, features_of, train_classifier
from metrics.image_metrics import (
    _accuracies,
    compare_features,
    evaluate_images,
    frechet_distance,
    nearest_two,
    share_inside,
)
from runtime import checkpoint_file
from runtime.randomness import generator


def images(pixels, labels, num_labels=10):
    return ImageSet(pixels, labels, [str(i) for i in range(num_labels)])


def digits():
    data = load_digits()
    pixels = torch.from_numpy((data.images * 255 / 16).round().astype(np.uint8))[:, None]
    return images(pixels, torch.from_numpy(data.target)).subset(torch.randperm(1797, generator=generator(0, "split")))


TRAIN, UNSEEN = digits().subset(torch.arange(360, 1797)), digits().subset(torch.arange(360))
FEW = digits().subset(torch.arange(200))  # for classifiers that need not be good


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the feature classifier of the digits is found: one with fixed features."""
    folder = tmp_path_factory.mktemp("classifiers")
    checkpoint_file.save(
        folder / f"{image_features._checksum(TRAIN, 0)}.classifier", {"classifier": fixed_classifier().state_dict()}
    )
    return folder


@torch.no_grad()
def fixed_classifier():
    """Random filters, features of mean 0 and variance 1 on TRAIN, and a ridge regression of the labels on them."""
    net, (images, labels) = image_features._untrained(TRAIN, seed=0), TRAIN[torch.arange(len(TRAIN))]
    for layer in net.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # the statistics become those of this one batch
    net.train()(images)
    hidden = net.eval()(images)[0].relu().double()
    hidden, targets = torch.cat([hidden, torch.ones(len(hidden), 1)], 1), torch.eye(10, dtype=torch.double)[labels]
    weights = torch.linalg.solve(hidden.T @ hidden + 10 * torch.eye(65), hidden.T @ targets)  # (65, 10)
    net.head.weight.copy_(weights[:-1].T)
    net.head.bias.copy_(weights[-1])
    return net


@pytest.fixture
def brief(monkeypatch):
    """Trainings of a few steps."""
    monkeypatch.setattr(image_features, "FEWEST_IMAGES", 600)


# ---------------------------------------------------------------- known values


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


def test_recall_notices_what_is_missing_and_precision_what_is_foreign():
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


# ---------------------------------------------------------------- faults


N = 120


def results(samples, asked, folder, unseen=None):
    rows = evaluate_images(samples, asked, TRAIN, unseen or UNSEEN.subset(torch.arange(N, len(UNSEEN))), folder=folder)
    return {row.name: row for row in rows}


def failed(rows):
    return {name for name, row in rows.items() if not row.passed}


def test_the_trained_classifier_knows_unseen_digits(tmp_path, capsys):
    rows = results(*UNSEEN[torch.arange(N)], tmp_path)
    assert rows["label accuracy"].floor > 0.9  # trainings on several machines gave 0.97 .. 0.99
    assert "of 240 unseen images classified correctly" in capsys.readouterr().out


def test_real_unseen_images_are_flagged_by_none_in_10_splits(folder):
    for seed in range(10):
        order = torch.randperm(len(UNSEEN), generator=generator(seed, "fresh"))
        rows = results(*UNSEEN[order[:N]], folder, UNSEEN.subset(order[N:]))
        assert failed(rows) == set()
        assert [row.n for row in rows.values()] == [N] * 5


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


# Each fault, and the metrics that must flag it: here they are all 5 standard deviations or more beyond their floor,
# where 4.5 are enough, so that no rounding decides. The features are fixed; only the faults are drawn, three times.
FAULTS = [
    (noisy, {"Frechet distance", "precision", "label accuracy"}),
    (class_missing, {"Frechet distance"}),
    (blurred, {"Frechet distance", "recall", "label accuracy"}),
    (repeated, {"Frechet distance", "recall"}),
    (swapped_labels, {"label accuracy"}),
]


@pytest.mark.parametrize(("fault", "flagged_by"), FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_faults_are_flagged(fault, flagged_by, seed, folder):
    rows = results(*fault(*UNSEEN[torch.arange(N)], generator(seed, "fault")), folder)
    assert flagged_by <= failed(rows)
    assert not any("indistinguishable" in rows[name].verdict for name in failed(rows))
    if fault is swapped_labels:  # the images themselves are real
        assert failed(rows) == flagged_by


def test_a_shift_of_gaussian_features_is_flagged_by_its_closed_form():
    # |shift|^2 = 64 * 0.6^2 = 23 is added to a floor that real features have as well
    real, made = (
        torch.randn(n, 64, generator=generator(i, "test"), dtype=torch.double) for i, n in ((0, 400), (1, 150))
    )
    same, shifted = ({r.name: r for r in compare_features(x, real, seed=0)} for x in (made, made + 0.6))
    added = shifted["Frechet distance"].value - same["Frechet distance"].value
    assert failed(same) == set() and "Frechet distance" in failed(shifted)
    # 1.2 times the sum of 64 differences of means: its standard deviation is sqrt(64 (1 / 150 + 1 / 250)) = 0.83
    assert added == pytest.approx(64 * 0.6**2, abs=5 * 1.2 * 0.83)


def test_sorted_samples_are_not_cut_off(folder):
    # n is half of the unseen images, far fewer than the samples: the first of them would all be zeros and ones
    order = TRAIN.labels.argsort()
    rows = {row.name: row for row in evaluate_images(*TRAIN[order], TRAIN, UNSEEN, folder=folder)}
    assert [row.n for row in rows.values()] == [180, 180, 180, 360, len(TRAIN)]
    assert failed(rows) == {"memorised"}  # they are the training images themselves


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("blur", [0, 0.05])
def test_copies_of_training_images_are_caught(share, blur, folder):
    images, labels = UNSEEN[torch.arange(N)]
    count, g = int(share * N), generator(0, "copies")
    images[:count], labels[:count] = TRAIN[torch.randperm(len(TRAIN), generator=g)[:count]]
    images = images + blur * torch.randn(images.shape, generator=g)
    assert "memorised" in failed(results(images, labels, folder))


def test_nearest_two_by_brute_force():
    images = UNSEEN[torch.arange(7)][0]
    every = (images[:, None] - TRAIN[torch.arange(len(TRAIN))][0][None]).flatten(2).norm(dim=2)
    torch.testing.assert_close(nearest_two(images, TRAIN), every.sort(1).values[:, :2], rtol=1e-4, atol=1e-4)


def test_no_label_accuracy_where_no_label_was_asked_for(folder):
    assert "label accuracy" not in results(UNSEEN[torch.arange(N)][0], None, folder)


def test_values_beyond_the_range_are_clamped(folder):
    images, _ = UNSEEN[torch.arange(N)]
    beyond = torch.where(images == -1, -1.7, images)
    assert results(beyond, None, folder) == results(images, None, folder)


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
def test_images_without_classes_have_no_classifier(labels, tmp_path):
    with pytest.raises(ValueError, match="needs labels"):
        feature_classifier(images(FEW.pixels, labels, num_labels=1), folder=tmp_path)


# ---------------------------------------------------------------- the saved classifier


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
    assert "training a feature classifier" in capsys.readouterr().out
    monkeypatch.setattr(image_features, "train_classifier", None)
    second = feature_classifier(FEW, folder=tmp_path / "new" / "folder")
    assert same(first, second) and not second.training and capsys.readouterr().out == ""


def test_other_data_has_another_classifier(brief, tmp_path):
    pixels, labels = FEW.pixels.clone(), FEW.labels.clone()
    pixels[3, 0, 4, 4] += 1
    labels[3] = (labels[3] + 1) % 10
    for data, seed in [(FEW, 0), (FEW, 1), (images(pixels, FEW.labels), 0), (images(FEW.pixels, labels), 0)]:
        feature_classifier(data, seed=seed, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("place", [0, 30, 0.3, 0.5, 0.9, -22, "cut"])
def test_a_damaged_file_is_trained_again(place, brief, tmp_path, capsys):
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
    assert said.count("\n") == 1 and "again" in said
    feature_classifier(FEW, folder=tmp_path)
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_written_costs_only_the_file(brief, tmp_path, capsys):
    (tmp_path / "classifiers").write_text("a file")
    assert not feature_classifier(FEW, folder=tmp_path / "classifiers").training
    assert "could not be saved" in capsys.readouterr().out


@pytest.mark.parametrize("dims", [(1, 8, 8), (3, 28, 28), (3, 64, 48), (4, 9, 33)])
def test_any_size_has_64_features_of_variance_1(dims):
    net = FeatureClassifier(dims, 7).train()
    images = torch.rand(50, *dims, generator=generator(0, "test")) * 2 - 1
    torch.testing.assert_close(net(images)[0].var(0, correction=0), torch.ones(64), atol=0.05, rtol=0)
    features, predicted = features_of(net.eval(), images.split(20))
    assert features.shape == (50, 64) and features.dtype == torch.float64 and predicted.shape == (50,)
