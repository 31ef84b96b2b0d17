"""The page that runs a model in the browser: what it computes equals PyTorch, nothing leaves it, texts stay texts."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from conftest import ROOT, command
from PIL import Image
from torch.optim.swa_utils import AveragedModel

from dataset import Normaliser
from pipeline import Pipeline, build
from runtime import checkpoint_file
from samplers import SAMPLERS, last, sample, sampler_timesteps
from samplers.guidance import classifier_free, exact_guided_denoiser
from samplers.options import SamplingOptions
from scripts import gallery, share
from viz.colours import TRACKED
from viz.pages.browser import Browser, picture_of
from viz.pages.explorable.export import packed_weights, rounded
from viz.pages.explorable.page import LARGEST, exact_parts_of, explorable
from viz.pages.explorable.verdicts import verdict_table

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
NASTY = ["</script><script>document.title='taken'</script>", "<img src=x onerror=\"document.title='taken'\">"]
FIGURES = {"recall": {"value": 0.5, "floor": 0.6, "low": 0.55, "high": 0.65, "passed": False, "verdict": NASTY[1]}}
SAMPLING = SamplingOptions("adams", 4, guidance=0.0)


def untrained(dataset, model, dims, classes=(), **options):
    """A model of random weights, which are as hard to get right as others."""
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


def saved(folder, pipeline):
    folder.mkdir(parents=True)
    state = {"ema": AveragedModel(pipeline.net).state_dict(), "classes": pipeline.classes, "config": pipeline.config}
    checkpoint_file.save(folder / "last.pt", {**state, "normaliser": vars(pipeline.normaliser)})
    (folder / "metrics.json").write_text(json.dumps({"figures": FIGURES}))
    return folder


def in_browser(html, script, folder):
    """What an expression gives in the page, as JSON: it is put at the end of the document, and the document printed."""
    path, quoted = folder / "page.html", "JSON.stringify(" + script + ")"
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


def request(x_T, **options):
    """The same as the page is asked it, with the noise that PyTorch draws on its way."""
    g = torch.Generator().manual_seed(1)
    noise = torch.stack([torch.randn(x_T.shape, generator=g) for _ in range(options["sampling_steps"])])
    options["noise"] = noise.flatten().tolist()
    return f"moonwalk.sample({x_T.flatten().tolist()}, {json.dumps(options)})"


def far(found, wanted):
    return float((torch.tensor(found) - wanted.flatten()).abs().max())


# ---------------------------------------------------------------- equality


@needs_chromium
@pytest.mark.parametrize("process", [{}, {"schedule": "flow"}], ids=["linear", "flow"])
def test_points_are_sampled_as_pytorch_samples_them(process, tmp_path):
    """Every sampler, from the same noise, with the network (of rounded weights) and with the exact distribution."""
    pipeline, names, counts = of_points(["0", "1"], **process), list(SAMPLERS), (1, 2, 5, 7, 30)
    x_T = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    on_page, parts = rounded(pipeline, packed_weights(pipeline, 16)), exact_parts_of(pipeline)
    parts = [part.scaled(pipeline.normaliser.mean, pipeline.normaliser.std) for part in parts]
    best = classifier_free(exact_guided_denoiser(parts, pipeline.scheduler), 1.5)
    cases = [(name, 12, label, exact) for name in names for label, exact in ((None, 0), (1, 0), (1, 1))]
    asked = [request(x_T, sampler=s, sampling_steps=n, label=k, guidance=1.5, exact=bool(e)) for s, n, k, e in cases]
    steps = [f"moonwalk.timesteps({name!r}, {n})" for name in names for n in counts]
    html, _ = explorable(pipeline, SAMPLING, {})
    found, taken = in_browser(html, f"[[{','.join(asked)}], [{','.join(steps)}]]", tmp_path)
    assert taken == [
        sampler_timesteps(pipeline.scheduler, SamplingOptions(sampler=name, sampling_steps=n))
        for name in names
        for n in counts
    ]
    for (name, n, label, exact), ends in zip(cases, found):
        denoise = best if exact else on_page.denoiser(SamplingOptions(guidance=1.5))
        wanted = sample_by_pytorch(denoise, pipeline.scheduler, x_T, label, name, n)
        assert far(ends, wanted) < 1e-3, (name, label, exact)


@needs_chromium
@pytest.mark.parametrize("bits", [16, 8])
def test_images_are_sampled_as_pytorch_samples_them(bits, tmp_path, monkeypatch):
    pipeline = of_images() if bits == 8 else of_images(channels=3, conditioning="cross_attention")
    on_page = rounded(pipeline, packed_weights(pipeline, bits))
    if bits == 8:  # as if 16 bits were too many
        most = len(explorable(pipeline, SAMPLING, {})[0]) - 1
        monkeypatch.setattr("viz.pages.explorable.page.LARGEST", most)
    interval = (0.5, 5.0) if bits == 8 else None
    html, facts = explorable(pipeline, replace(SAMPLING, guidance=0.5, guidance_interval=interval), {})
    assert f"Weights have {bits} bits" in facts
    x_T = torch.randn(2, *pipeline.dims, generator=torch.Generator().manual_seed(0))
    cases = [("ddim", 6, 1), ("dpmpp_2m", 6, 0), ("adams", 5, None)]
    asked = [request(x_T, sampler=s, sampling_steps=n, label=k, guidance=0.5) for s, n, k in cases]
    for (name, n, label), ends in zip(cases, in_browser(html, f"[{','.join(asked)}]", tmp_path)):
        wanted = sample_by_pytorch(
            on_page.denoiser(SamplingOptions(guidance=0.5, guidance_interval=interval)),
            pipeline.scheduler,
            x_T,
            label,
            name,
            n,
        )
        assert wanted.std() > 0.05 and far(ends, wanted) < 1e-2, (name, label)


@needs_chromium
def test_linear_networks_are_sampled_as_pytorch_samples_them(tmp_path):
    pipeline = untrained({"name": "file", "path": "a.csv"}, {"name": "linear", "prediction": "eps"}, (2,), ["x", "y"])
    on_page, x_T = rounded(pipeline, packed_weights(pipeline, 16)), torch.ones(2, 2)
    html, _ = explorable(pipeline, SAMPLING, {})
    (found,) = in_browser(html, f"[{request(x_T, sampler='ddim', sampling_steps=3, label=1)}]", tmp_path)
    wanted = sample_by_pytorch(on_page.denoiser(), pipeline.scheduler, x_T, 1, "ddim", 3)
    assert far(found, wanted) < 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("bits", [16, 8])
def test_rounding_moves_a_weight_by_less_than_its_last_digit(bits):
    pipeline = of_images()
    for name, weight in rounded(pipeline, packed_weights(pipeline, bits)).net.state_dict().items():
        own = pipeline.net.state_dict()[name]
        largest = own.abs().flatten(1).amax(1) if own.ndim > 1 else own.abs()
        least = largest / 254 if bits == 8 and own.ndim > 1 else largest / 2**11
        room = least.reshape(-1, *[1] * (own.ndim - 1)) * 1.001 + 1e-7
        assert bool(((weight - own).abs() <= room).all()), name


# ---------------------------------------------------------------- the page itself

LOOK = """new Promise((done) => {
  const look = (event) => done(JSON.stringify({
    blocked: event?.effectiveDirective, title: document.title, scripts: document.scripts.length,
    images: document.images.length, said: document.getElementById("said").textContent,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
    wide: document.documentElement.scrollWidth,
    labels: [...document.querySelectorAll("#labels span")].map((label) => label.textContent),
  }));
  document.addEventListener("securitypolicyviolation", look, { once: true });
  fetch("http://127.0.0.1:9/").catch(() => setTimeout(look, 20000));
})"""


@needs_chromium
def test_a_page_comes_alive_on_a_phone_and_neither_asks_for_anything_nor_obeys_its_texts(tmp_path):
    (tmp_path / "page.html").write_text(explorable(of_images(NASTY), SAMPLING, FIGURES)[0])
    with Browser(CHROMIUM, tmp_path / "profile") as browser:
        session = browser.open((tmp_path / "page.html").as_uri(), 390, 844)
        browser.wait(session, share.READY["images"])  # until the worker has drawn an image
        seen = json.loads(browser.value(session, LOOK))
    assert seen["said"].startswith("Drawn in")
    assert seen["blocked"] == "connect-src" and [name for name in seen["loaded"] if not name.startswith("blob:")] == []
    assert seen["title"] == "moonwalk: images" and seen["scripts"] == 1 and seen["images"] == 0
    assert seen["labels"] == NASTY and seen["wide"] == 390


@needs_chromium
def test_points_walk_to_the_end_and_the_arrow_keys_move_one(tmp_path):
    (tmp_path / "page.html").write_text(explorable(of_points(["0", "1"]), SAMPLING, {})[0])
    with Browser(CHROMIUM, tmp_path / "profile") as browser:
        session = browser.open((tmp_path / "page.html").as_uri())
        browser.wait(session, share.READY["points"])  # until worker and fields have answered
        before = browser.value(session, "element('network_canvas').focus(), [...points.drag]")
        for _ in range(3):
            browser.call("Input.dispatchKeyEvent", session, type="keyDown", key="ArrowLeft")
        seen = json.loads(browser.value(session, STATE))
    assert seen["drag"] == pytest.approx([before[0] - 0.3, before[1]], abs=1e-5) == seen["starts"]
    assert seen["finite"] and seen["shade"] > 0.9 and seen["options"] == ["all", "0", "1"]


STATE = """JSON.stringify({
  drag: [...points.drag], starts: [...points.paths.exact.states[0].x_t],
  finite: stage.walk.states.at(-1).x_t.every(Number.isFinite) && points.field.network.every(Number.isFinite),
  shade: Math.max(...points.shade), options: [...element("label").options].map((option) => option.text),
})"""


def test_a_page_names_no_address():
    for pipeline in (of_points(), of_images()):
        html, _ = explorable(pipeline, SAMPLING, {})
        assert "default-src 'none'" in html and not re.search(r"https?:|src=|url\(|import\(", html)


@pytest.mark.parametrize("make", [of_points, of_images])
def test_texts_cannot_begin_a_script_or_a_picture(make):
    html, _ = explorable(make(NASTY), SAMPLING, FIGURES)
    assert html.count("<script") == html.count("</script") == 1 and "<img" not in html


def test_the_name_of_a_data_set_cannot_begin_a_script():
    pipeline = of_points()
    pipeline.config["dataset"] = {"name": "file", "path": "<script>alert(1)<!--.csv"}
    html, _ = explorable(pipeline, SAMPLING, {})
    assert html.count("<script") == 1 and "not known exactly" in html


def test_what_a_page_cannot_hold_is_refused_in_a_sentence():
    model = {"name": "mlp", "hidden": 900, "layers": 2, "frequencies": 0, "prediction": "v"}
    with pytest.raises(ValueError, match="3 coordinates"):
        explorable(untrained({"name": "helix", "noise": 0.1}, {**model, "hidden": 8}, (3,)), SAMPLING, {})
    with pytest.raises(ValueError, match="MB even with 8 bits"):
        explorable(untrained({"name": "moons", "noise": 0.05}, model, (2,)), SAMPLING, {})
    with pytest.raises(ValueError, match="figures of an evaluation"):
        verdict_table({"recall": {"value": "many"}})


def test_the_command_makes_a_page_of_the_newest_run(tmp_path):
    folder = saved(tmp_path / "outputs" / "train" / "a", of_points(["left", "right"]))
    done = command("scripts/share.py", tmp_path)
    html = (folder / "page.html").read_text()
    assert done.returncode == 0 and "page.html" in done.stdout, done.stderr
    assert "0.5500, 0.6500" in html and "From noise to two moons" in html and len(html) < 300_000 < LARGEST
    (folder / "metrics.json").write_text("{")
    broken = command(f"scripts/share.py checkpoint={folder}", tmp_path)
    assert broken.returncode == 1 and "metrics.json is damaged" in broken.stderr and "Traceback" not in broken.stderr


@needs_chromium
def test_the_picture_of_a_page_holds_what_the_page_has_computed(tmp_path):
    """The path of the point that can be dragged, in cyan, in both panels: it arrives from the worker at last."""
    saved(tmp_path / "a", of_points())
    done = command("scripts/share.py a --picture page.png", tmp_path)
    assert done.returncode == 0 and "picture:    page.png" in done.stdout, done.stderr
    seen = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    cyan = (np.abs(seen - TRACKED).max(-1) < 30)[280:]  # below the words
    assert seen.shape == (720, 1280, 3) and cyan[:, :640].sum() > 400 and cyan[:, 640:].sum() > 400


def test_a_picture_without_a_browser_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs an installed browser: one of chromium"):
        picture_of("about:blank", "true")


def test_a_default_network_fits_into_300_kb():
    model = {"name": "mlp", "hidden": 96, "layers": 4, "frequencies": 3, "prediction": "v"}
    pipeline = untrained({"name": "moons", "noise": 0.05}, model, (2,), num_timesteps=1000)
    assert len(explorable(pipeline, SAMPLING, FIGURES)[0]) < 300_000


# ---------------------------------------------------------------- the gallery


def test_a_gallery_links_what_it_has_copied_and_nothing_else(tmp_path):
    runs = [saved(tmp_path / name, make(NASTY)) for name, make in (("a b", of_points), ("c", of_images))]
    (runs[0] / "samples.png").write_bytes(b"png")
    gallery.make([str(run) for run in runs], tmp_path / "site")
    html = (tmp_path / "site" / "index.html").read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links == ["gallery/a%20b/samples.png", "gallery/a%20b/page.html", "gallery/c/page.html"]
    assert all((tmp_path / "site" / unquote(link)).exists() for link in links) and html.count("<script") == 1


def test_runs_of_one_name_are_refused(tmp_path):
    runs = [saved(tmp_path / up / "a", of_points()) for up in ("x", "y")]
    with pytest.raises(ValueError, match="two runs are called a"):
        gallery.make([str(run) for run in runs], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_gallery_of_docs_is_whole():
    html = (ROOT / "docs" / "index.html").read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links and all((ROOT / "docs" / unquote(link)).exists() for link in links)
