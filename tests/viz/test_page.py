"""The page that runs a model in the browser, and the gallery of such pages.

What a page computes equals what PyTorch computes. A page loads nothing, and no text in it becomes a script.
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from conftest import ROOT, command
from PIL import Image
from torch.optim.swa_utils import AveragedModel

from dataset import Normaliser
from pipeline import Pipeline, build
from points.tables import Columns
from runtime import checkpoint_file
from samplers import SAMPLERS, last, sample, sampler_timesteps
from samplers.guidance import classifier_free, exact_guided_denoiser
from samplers.options import SamplingOptions
from scripts import gallery, share
from viz.colours import GROUND, TRACKED
from viz.pages.browser import Browser, picture_of
from viz.pages.explorable.page import LARGEST, exact_parts_of, explorable
from viz.pages.explorable.page_contents import contents, packed_weights, rounded
from viz.pages.explorable.verdicts import verdict_table
from viz.pages.gallery_page import Entry
from viz.pages.gallery_page import gallery as gallery_page
from viz.style import darkened

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


def in_a_browser(test):
    """Mark a test that starts a real browser."""
    return pytest.mark.slow(needs_chromium(test))


NASTY = ["</script><script>document.title='taken'</script>", "<img src=x onerror=\"document.title='taken'\">"]
FIGURES = {
    "recall": {
        "value": 0.5,
        "floor": 0.6,
        "low": 0.55,
        "high": 0.65,
        "bounds": [0.52, None],
        "passed": False,
        "verdict": NASTY[1],
    }
}
SAMPLING = SamplingOptions("adams", 4, guidance=0.0)


def untrained(dataset, model, dims, classes=(), **options):
    """A pipeline with random weights. Computing with them is as hard as with trained ones."""
    config = {"schedule": "linear", "num_timesteps": 203, "beta_start": None, "beta_end": None, **options}
    config |= {"seed": 0, "num_samples": 100, "dataset": dataset, "model": model}
    net, scheduler = build(config, dims, len(classes))
    g = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 4
        weight.data = torch.randn(weight.shape, generator=g) / fan**0.5
    shift = torch.arange(float(dims[0])) if len(dims) == 1 else torch.zeros(dims)
    return Pipeline(net, scheduler, Normaliser(shift, shift * 0 + 0.7), config, list(classes))


def of_points(classes=(), **options):
    model = {"name": "mlp", "hidden": 24, "layers": 2, "frequencies": 3, "prediction": "v"}
    return untrained({"name": "moons", "noise": 0.05}, model, (2,), classes, **options)


def of_images(classes=("a", "b"), channels=1, conditioning="embedding"):
    model = {"name": "unet", "channels": [16, 24], "blocks": 1, "patch": 2, "heads": 2, "attention_size": 4}
    model |= {"conditioning": conditioning, "prediction": "v"}
    return untrained({"name": "images"}, model, (channels, 12, 12), classes, schedule="cosine")


def save_run(folder, pipeline):
    """Make a run folder with the checkpoint and the figures of a pipeline."""
    folder.mkdir(parents=True)
    state = {"ema": AveragedModel(pipeline.net).state_dict(), "classes": pipeline.classes, "config": pipeline.config}
    checkpoint_file.save(folder / "last.pt", {**state, "normaliser": vars(pipeline.normaliser)})
    (folder / "metrics.json").write_text(json.dumps({"figures": FIGURES}))
    return folder


def evaluate_in_browser(html, script, folder):
    """The value of an expression in a page. It is written, as JSON, at the end of the document, which is printed."""
    path = folder / "page.html"
    quoted = f"JSON.stringify({script})"
    end = f"<script>document.body.textContent = 'answer' + {quoted} + 'answer'</script></body>"
    path.write_text(html.replace("</body>", end))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    line = [CHROMIUM, *flags, f"--user-data-dir={folder}/profile", path.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=1800)
    return json.loads(done.stdout.split("answer")[1])


def sample_by_pytorch(denoise, scheduler, x_T, label, sampler, sampling_steps):
    labels = None if label is None else torch.full((len(x_T),), label)
    g = torch.Generator().manual_seed(1)
    options = SamplingOptions(sampler, sampling_steps)
    return last(sample(partial(denoise, label=labels), scheduler, x_T, options, generator=g))


def call_of_page(x_T, **options):
    """The expression with which the page draws the same samples. It has the noise that PyTorch draws at each step."""
    g = torch.Generator().manual_seed(1)
    noise = torch.stack([torch.randn(x_T.shape, generator=g) for _ in range(options["sampling_steps"])])
    options["noise"] = noise.flatten().tolist()
    return f"moonwalk.sample({x_T.flatten().tolist()}, {json.dumps(options)})"


def largest_difference(found, expected):
    return float((torch.tensor(found) - expected.flatten()).abs().max())


# ---------------------------------------------------------------- what a page says of itself


def test_the_page_of_a_reflow_says_whose_answer_the_exact_one_is():
    pipeline = of_points()
    plain, _ = explorable(pipeline, SAMPLING, {})
    reflow, _ = explorable(replace(pipeline, config={**pipeline.config, "reflow": "last.pt"}), SAMPLING, {})
    assert "This network is a reflow" in reflow
    assert "This network is a reflow" not in plain


def test_the_page_of_a_reflow_explains_no_network_that_is_trained_on_the_data():
    pipeline = of_points()
    html, _ = explorable(replace(pipeline, config={**pipeline.config, "reflow": "last.pt"}), SAMPLING, {})
    words = " ".join(html.split())
    assert "samples of another network were mixed with the noise that each came from" in words
    for said_of_others in ("data were mixed", "the points miss", "its score (arrows)", "no network can do better"):
        assert said_of_others in " ".join(explorable(pipeline, SAMPLING, {})[0].split())
        assert said_of_others not in words


def test_the_page_of_a_reflow_begins_with_few_evaluations():
    pipeline = of_points()
    reflow = replace(pipeline, config={**pipeline.config, "reflow": "last.pt"})
    options = share.page_sampling(reflow)
    assert (options.sampler, options.sampling_steps) == ("ddim", 2)


@in_a_browser
def test_a_page_at_a_fraction_says_that_it_computes_until_the_walk_is_there(tmp_path):
    html, _ = explorable(of_points(), SAMPLING, {})
    says = "(stage.walk = new Walk(), stage.position = 0.62, show_clock(), element('noise').textContent)"
    assert evaluate_in_browser(html, says, tmp_path) == "computing …"


@in_a_browser
def test_the_exact_path_of_a_point_has_many_evaluations_whatever_the_sampler(tmp_path):
    html, _ = explorable(of_points(), SAMPLING, {})
    lengths = "(retrace(), [points.paths.network.states.length, points.paths.exact.states.length])"
    network, exact = evaluate_in_browser(html, lengths, tmp_path)
    assert network == SAMPLING.sampling_steps + 1
    assert exact == 50 + 1


@in_a_browser
def test_both_panels_are_on_the_first_screen_of_a_phone(tmp_path):
    html, _ = explorable(of_points(), SAMPLING, {})
    path = tmp_path / "page.html"
    path.write_text(html)
    with Browser(CHROMIUM, tmp_path / "profile") as browser:
        session = browser.open(path.as_uri(), 390, 844)
        bottom = browser.value(session, "element('exact_canvas').getBoundingClientRect().bottom")
    assert 0 < bottom < 844


def test_a_picture_for_a_dark_theme_keeps_colours_and_the_images_of_a_grid():
    picture = np.full((20, 30, 3), 255, np.uint8)
    picture[2, 2] = (0, 0, 0)
    picture[3, 3] = (230, 159, 0)
    picture[10:15, 10:15] = GROUND
    picture[12, 12] = (255, 255, 255)  # of an image
    dark = darkened(picture, GROUND)
    assert dark[0, 0].max() < 40
    assert dark[2, 2].min() > 240
    assert dark[3, 3].tolist() == [230, 159, 0]
    assert np.array_equal(dark[10:15, 10:15], picture[10:15, 10:15])


def test_a_gallery_shows_a_dark_picture_in_a_dark_theme(tmp_path):
    Image.new("RGB", (9, 9), "white").save(tmp_path / "samples.png")
    Image.new("RGB", (9, 9), "black").save(tmp_path / "flow.png")
    pictures = [Path("samples.png"), Path("flow.png")]
    dark = gallery.dark_pictures(pictures, tmp_path)
    assert dark == {Path("samples.png"): Path("samples_dark.png")}
    entry = Entry("t", "about", pictures, Path("page.html"), {}, dark)
    page = gallery_page([entry])
    assert '<source media="(prefers-color-scheme: dark)" srcset="samples_dark.png">' in page
    assert page.count("<source") == 1


# ---------------------------------------------------------------- samples of a page equal those of PyTorch

# The label and whether the exact distribution takes the place of the network.
EVERY_DENOISER = [(None, False), (1, False), (1, True)]
COUNTS = (1, 2, 5, 7, 30)


@pytest.fixture(scope="module", params=[{}, {"schedule": "flow"}], ids=["linear", "flow"])
def points_on_page(request, tmp_path_factory):
    """A pipeline of points, x_T, and what a browser computes: samples of every sampler, and timesteps."""
    pipeline = of_points(["0", "1"], **request.param)
    x_T = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    samples = []
    for name in SAMPLERS:
        for label, exact in EVERY_DENOISER:
            options = {"sampler": name, "sampling_steps": 12, "label": label, "guidance": 1.5, "exact": exact}
            samples.append(call_of_page(x_T, **options))
    steps = [f"moonwalk.timesteps({name!r}, {n})" for name in SAMPLERS for n in COUNTS]
    html, _ = explorable(pipeline, SAMPLING, {})
    script = f"[[{','.join(samples)}], [{','.join(steps)}]]"
    found, timesteps = evaluate_in_browser(html, script, tmp_path_factory.mktemp("points"))
    return pipeline, x_T, found, timesteps


@in_a_browser
def test_timesteps_of_a_page_are_those_of_pytorch(points_on_page):
    pipeline, _, _, timesteps = points_on_page
    assert timesteps == [
        sampler_timesteps(pipeline.scheduler, SamplingOptions(sampler=name, sampling_steps=n))
        for name in SAMPLERS
        for n in COUNTS
    ]


@in_a_browser
@pytest.mark.parametrize("i", range(len(SAMPLERS)), ids=SAMPLERS)
@pytest.mark.parametrize("j", range(len(EVERY_DENOISER)), ids=["network without label", "network", "exact"])
def test_points_of_a_page_are_those_of_pytorch(points_on_page, i, j):
    """From the same noise, with the network (of rounded weights) or with the exact distribution."""
    pipeline, x_T, found, _ = points_on_page
    label, exact = EVERY_DENOISER[j]
    if exact:
        normaliser = pipeline.normaliser
        parts = [part.scaled(normaliser.mean, normaliser.std) for part in exact_parts_of(pipeline)]
        denoise = classifier_free(exact_guided_denoiser(parts, pipeline.scheduler), 1.5)
    else:
        denoise = rounded(pipeline, packed_weights(pipeline, 16)).denoiser(SamplingOptions(guidance=1.5))
    expected = sample_by_pytorch(denoise, pipeline.scheduler, x_T, label, list(SAMPLERS)[i], 12)
    assert largest_difference(found[i * len(EVERY_DENOISER) + j], expected) < 1e-3


IMAGE_CASES = [("ddim", 6, 1), ("dpmpp_2m", 6, 0), ("adams", 5, None)]  # sampler, sampling steps, label


def page_of_images(bits):
    """A page of images whose weights have so many bits, its facts, the pipeline, and the guidance interval."""
    interval = (0.5, 5.0) if bits == 8 else None
    options = replace(SAMPLING, guidance=0.5, guidance_interval=interval)
    if bits == 16:
        pipeline = of_images(channels=3, conditioning="cross_attention")
        return *explorable(pipeline, options, {}), pipeline, interval
    pipeline = of_images()
    with pytest.MonkeyPatch.context() as patch:
        # With 16 bits, the page is larger than this limit by one character.
        patch.setattr("viz.pages.explorable.page.LARGEST", len(explorable(pipeline, SAMPLING, {})[0]) - 1)
        return *explorable(pipeline, options, {}), pipeline, interval


@pytest.mark.parametrize("bits", [16, 8])
def test_weights_have_16_bits_and_8_where_the_page_would_be_too_large(bits):
    _, facts, _, _ = page_of_images(bits)
    assert f"Weights have {bits} bits" in facts


@in_a_browser
@pytest.mark.parametrize("bits", [16, 8])
def test_images_of_a_page_are_those_of_pytorch(bits, tmp_path):
    html, _, pipeline, interval = page_of_images(bits)
    on_page = rounded(pipeline, packed_weights(pipeline, bits))
    x_T = torch.randn(2, *pipeline.dims, generator=torch.Generator().manual_seed(0))
    calls = [call_of_page(x_T, sampler=s, sampling_steps=n, label=k, guidance=0.5) for s, n, k in IMAGE_CASES]
    found = evaluate_in_browser(html, f"[{','.join(calls)}]", tmp_path)
    for (name, n, label), ends in zip(IMAGE_CASES, found, strict=True):
        expected = sample_by_pytorch(
            on_page.denoiser(SamplingOptions(guidance=0.5, guidance_interval=interval)),
            pipeline.scheduler,
            x_T,
            label,
            name,
            n,
        )
        assert expected.std() > 0.05
        assert largest_difference(ends, expected) < 1e-2, (name, label)


@in_a_browser
def test_points_of_a_linear_network_on_a_page_are_those_of_pytorch(tmp_path):
    pipeline = untrained({"name": "file", "path": "a.csv"}, {"name": "linear", "prediction": "eps"}, (2,), ["x", "y"])
    on_page, x_T = rounded(pipeline, packed_weights(pipeline, 16)), torch.ones(2, 2)
    html, _ = explorable(pipeline, SAMPLING, {})
    call = call_of_page(x_T, sampler="ddim", sampling_steps=3, label=1)
    (found,) = evaluate_in_browser(html, f"[{call}]", tmp_path)
    expected = sample_by_pytorch(on_page.denoiser(), pipeline.scheduler, x_T, 1, "ddim", 3)
    assert largest_difference(found, expected) < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("bits", [16, 8])
def test_rounding_moves_a_weight_by_less_than_its_last_digit(bits):
    pipeline = of_images()
    for name, weight in rounded(pipeline, packed_weights(pipeline, bits)).net.state_dict().items():
        own = pipeline.net.state_dict()[name]
        largest = own.abs().flatten(1).amax(1) if own.ndim > 1 else own.abs()
        last_digit = largest / 254 if bits == 8 and own.ndim > 1 else largest / 2**11
        tolerance = last_digit.reshape(-1, *[1] * (own.ndim - 1)) * 1.001 + 1e-7
        assert bool(((weight - own).abs() <= tolerance).all()), name


# ---------------------------------------------------------------- the page itself

LOOK = """new Promise((done) => {
  const look = (event) => done(JSON.stringify({
    blocked: event?.effectiveDirective, title: document.title, scripts: document.scripts.length,
    images: document.images.length, said: document.getElementById("said").textContent,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
    wide: document.documentElement.scrollWidth,
    beyond: [...document.querySelectorAll(".scroll")].map((box) => box.scrollWidth - box.clientWidth),
    labels: [...document.querySelectorAll("#labels span")].map((label) => label.textContent),
  }));
  document.addEventListener("securitypolicyviolation", look, { once: true });
  fetch("http://127.0.0.1:9/").catch(() => setTimeout(look, 20000));
})"""


@pytest.fixture(scope="module")
def on_a_phone(tmp_path_factory):
    """What a browser of the size of a phone shows of a page of images with nasty texts, and what it has blocked."""
    folder = tmp_path_factory.mktemp("phone")
    (folder / "page.html").write_text(explorable(of_images(NASTY), SAMPLING, FIGURES)[0])
    with Browser(CHROMIUM, folder / "profile") as browser:
        session = browser.open((folder / "page.html").as_uri(), 390, 844)
        browser.wait(session, share.READY["images"])  # The worker has drawn an image.
        return json.loads(browser.value(session, LOOK))


@in_a_browser
def test_a_page_draws_an_image_on_a_phone(on_a_phone):
    assert on_a_phone["said"].startswith("Drawn in")


@in_a_browser
def test_a_phone_shows_every_column_of_the_verdicts_without_scrolling(on_a_phone):
    assert on_a_phone["beyond"] == [0]


@in_a_browser
def test_a_page_can_ask_no_server_for_anything(on_a_phone):
    assert on_a_phone["blocked"] == "connect-src"
    assert [name for name in on_a_phone["loaded"] if not name.startswith("blob:")] == []


@in_a_browser
def test_nasty_texts_do_nothing_in_a_browser(on_a_phone):
    assert on_a_phone["title"] == "moonwalk: images"
    assert on_a_phone["scripts"] == 1
    assert on_a_phone["images"] == 0


@in_a_browser
def test_a_page_shows_nasty_labels_as_they_are(on_a_phone):
    assert on_a_phone["labels"] == NASTY


@in_a_browser
def test_a_page_is_no_wider_than_a_phone(on_a_phone):
    assert on_a_phone["wide"] == 390


@pytest.fixture(scope="module")
def after_arrow_keys(tmp_path_factory):
    """The place of the point that can be moved before three presses of the left arrow key, and the state after them."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "page.html").write_text(explorable(of_points(["0", "1"]), SAMPLING, {})[0])
    with Browser(CHROMIUM, folder / "profile") as browser:
        session = browser.open((folder / "page.html").as_uri())
        browser.wait(session, share.READY["points"])  # The worker and the fields have answered.
        before = browser.value(session, "element('network_canvas').focus(), [...points.drag]")
        for _ in range(3):
            browser.call("Input.dispatchKeyEvent", session, type="keyDown", key="ArrowLeft")
        return before, json.loads(browser.value(session, STATE))


@in_a_browser
def test_arrow_keys_move_a_point_and_the_start_of_its_path(after_arrow_keys):
    before, state = after_arrow_keys
    assert state["drag"] == pytest.approx([before[0] - 0.3, before[1]], abs=1e-5) == state["starts"]


@in_a_browser
def test_points_and_fields_of_a_page_are_finite_at_the_end(after_arrow_keys):
    _, state = after_arrow_keys
    assert state["finite"]


@in_a_browser
def test_the_density_of_a_page_is_shaded_in_the_whole_range(after_arrow_keys):
    _, state = after_arrow_keys
    assert state["shade"] > 0.9


@in_a_browser
def test_a_page_offers_all_labels_and_each_one(after_arrow_keys):
    _, state = after_arrow_keys
    assert state["options"] == ["all", "0", "1"]


STATE = """JSON.stringify({
  drag: [...points.drag], starts: [...points.paths.exact.states[0].x_t],
  finite: stage.walk.states.at(-1).x_t.every(Number.isFinite) && points.field.network.every(Number.isFinite),
  shade: Math.max(...points.shade), options: [...element("label").options].map((option) => option.text),
})"""


every_kind = pytest.mark.parametrize("make", [of_points, of_images])


@every_kind
def test_a_page_may_load_nothing(make):
    html, _ = explorable(make(), SAMPLING, {})
    assert "default-src 'none'" in html


@every_kind
def test_a_page_names_no_address(make):
    html, _ = explorable(make(), SAMPLING, {})
    assert not re.search(r"https?:|src=|url\(|import\(", html)


@every_kind
def test_texts_cannot_begin_a_script_or_a_picture(make):
    html, _ = explorable(make(NASTY), SAMPLING, FIGURES)
    assert html.count("<script") == html.count("</script") == 1
    assert "<img" not in html


@pytest.fixture(scope="module")
def page_of_a_file():
    """A page of points from a file with a nasty name."""
    pipeline = of_points()
    pipeline.config["dataset"] = {"name": "file", "path": "<script>alert(1)<!--.csv"}
    return explorable(pipeline, SAMPLING, {})[0]


def test_the_name_of_a_data_set_cannot_begin_a_script(page_of_a_file):
    assert page_of_a_file.count("<script") == 1


def test_a_page_says_that_the_distribution_of_a_file_is_not_known(page_of_a_file):
    assert "not known exactly" in page_of_a_file


LARGE_MLP = {"name": "mlp", "hidden": 900, "layers": 2, "frequencies": 0, "prediction": "v"}


def test_points_in_three_dimensions_are_refused():
    pipeline = untrained({"name": "helix", "noise": 0.1}, {**LARGE_MLP, "hidden": 8}, (3,))
    with pytest.raises(ValueError, match=r"3 coordinates: .* records them in space"):
        explorable(pipeline, SAMPLING, {})


def test_points_of_four_coordinates_are_refused_with_advice_that_holds_for_them():
    pipeline = untrained({"name": "file", "path": "a.csv"}, {**LARGE_MLP, "hidden": 8}, (4,))
    with pytest.raises(ValueError, match=r"4 coordinates: .* draws them in samples\.png"):
        explorable(pipeline, SAMPLING, {})


def test_a_network_that_is_too_large_for_a_page_is_refused():
    with pytest.raises(ValueError, match="MB even with 8 bits"):
        explorable(untrained({"name": "moons", "noise": 0.05}, LARGE_MLP, (2,)), SAMPLING, {})


def test_a_page_of_a_table_holds_the_names_of_its_columns_and_one_of_a_synthetic_set_none():
    pipeline = untrained({"name": "moons", "noise": 0.05}, {**LARGE_MLP, "hidden": 8}, (2,))
    assert contents(pipeline, SAMPLING, [], {})["axes"] == []
    pipeline.columns = Columns(("load <N>", "time"))
    assert contents(pipeline, SAMPLING, [], {})["axes"] == ["load <N>", "time"]


def test_figures_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="figures of an evaluation"):
        verdict_table({"recall": {"value": "many"}})


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The command without a checkpoint, and the page that it makes of the newest run."""
    folder = tmp_path_factory.mktemp("shared")
    run = save_run(folder / "outputs" / "train" / "a", of_points(["left", "right"]))
    done = command("scripts/share.py", folder)
    return done, (run / "page.html").read_text()


def test_the_command_says_where_the_page_of_the_newest_run_is(shared):
    done, _ = shared
    assert done.returncode == 0 and "page.html" in done.stdout, done.stderr


@pytest.mark.parametrize("words", ["from 0.5200", "From noise to two moons"])
def test_the_page_of_the_command_has_figures_and_a_title(shared, words):
    _, html = shared
    assert words in html


def test_the_page_of_the_command_is_small(shared):
    _, html = shared
    assert len(html) < 300_000 < LARGEST


def test_damaged_figures_are_answered_in_a_sentence(tmp_path):
    run = save_run(tmp_path / "a", of_points(["left", "right"]))
    (run / "metrics.json").write_text("{")
    done = command(f"scripts/share.py checkpoint={run}", tmp_path)
    assert done.returncode == 1
    assert "metrics.json is damaged" in done.stderr
    assert "Traceback" not in done.stderr


@in_a_browser
def test_the_picture_of_a_page_shows_what_the_page_has_computed(tmp_path):
    """The path of the point that can be moved is the last that the worker sends: it is cyan, in both panels."""
    save_run(tmp_path / "a", of_points())
    done = command("scripts/share.py a --picture page.png", tmp_path)
    assert done.returncode == 0 and "picture:    page.png" in done.stdout, done.stderr
    seen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    cyan = (np.abs(seen - TRACKED).max(-1) < 30)[280:]  # below the words
    assert seen.shape == (720, 1280, 3)
    assert cyan[:, :640].sum() > 400
    assert cyan[:, 640:].sum() > 400


def test_a_picture_without_a_browser_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs an installed browser: one of chromium"):
        picture_of("about:blank", "true")


def test_a_default_network_fits_into_300_kb():
    model = {"name": "mlp", "hidden": 96, "layers": 4, "frequencies": 3, "prediction": "v"}
    pipeline = untrained({"name": "moons", "noise": 0.05}, model, (2,), num_timesteps=1000)
    assert len(explorable(pipeline, SAMPLING, FIGURES)[0]) < 300_000


# ---------------------------------------------------------------- the gallery


def links_of(html):
    return re.findall(r'(?:src|href)="([^"]*)"', html)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A gallery of two runs with nasty labels, the first of which has a picture."""
    folder = tmp_path_factory.mktemp("gallery")
    runs = [save_run(folder / name, make(NASTY)) for name, make in (("a b", of_points), ("c", of_images))]
    (runs[0] / "samples.png").write_bytes(b"png")
    gallery.make([str(run) for run in runs], folder / "site")
    return folder / "site"


def test_a_gallery_links_the_pages_and_pictures_of_its_runs(site):
    links = links_of((site / "index.html").read_text())
    assert links == ["gallery/a%20b/samples.png", "gallery/a%20b/page.html", "gallery/c/page.html"]


def test_a_gallery_has_copied_what_it_links(site):
    assert all((site / unquote(link)).exists() for link in links_of((site / "index.html").read_text()))


def test_texts_cannot_begin_a_script_in_a_gallery(site):
    assert (site / "index.html").read_text().count("<script") == 1


def test_two_runs_of_one_name_are_refused_and_leave_no_gallery(tmp_path):
    runs = [save_run(tmp_path / up / "a", of_points()) for up in ("x", "y")]
    with pytest.raises(ValueError, match="two runs are called a"):
        gallery.make([str(run) for run in runs], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_run_that_a_gallery_cannot_show_is_named(tmp_path):
    good = save_run(tmp_path / "good", of_points())
    bad = save_run(tmp_path / "bad", untrained({"name": "helix", "noise": 0.1}, {**LARGE_MLP, "hidden": 8}, (3,)))
    with pytest.raises(ValueError, match=f"^{bad}: a page draws points of the plane"):
        gallery.make([str(good), str(bad)], tmp_path / "site")


def test_the_pages_in_docs_have_the_table_of_verdicts_that_pages_have_today():
    heads = re.compile(r'<tr class="heads">.*</tr>')
    today = heads.findall(verdict_table(FIGURES))
    pages = sorted((ROOT / "docs/gallery").glob("*/page.html"))
    assert [heads.findall(page.read_text()) for page in pages] == [today] * len(pages)
    assert set(heads.findall((ROOT / "docs/index.html").read_text())) == set(today)


def test_every_link_of_the_gallery_in_docs_leads_to_a_file():
    links = links_of((ROOT / "docs" / "index.html").read_text())
    assert links
    assert all((ROOT / "docs" / unquote(link)).exists() for link in links)
