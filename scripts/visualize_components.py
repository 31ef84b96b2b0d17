"""Make pictures of a network's parts: `python scripts/visualize_components.py [--checkpoint FILE]`.

The weights are random, or those of a trained network for images.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import argparse
import os
import sys
from collections.abc import Iterator

import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from conf import script_parsers
from conf.messages import in_one_line
from conf.script_parsers import NETWORK_PARTS, PARTS
from images import MNIST_ROOT
from images.image_files import list_images, read_images
from images.sets import ImageSet, random_rows
from nets.embedding import frequencies, time_embedding
from pipeline import Pipeline
from runtime import device as devices
from viz import components as draw
from viz import stills as figures
from viz import style
from viz.network_parts import LACKS, Part, random_parts, stretched, trained_parts

TIMESTEPS = (0, 1, 10, 100)  # whose embeddings are drawn
ALL_TIMESTEPS = 1000
EMBEDDING_DIM = 320
FIRST_DIMS = 64  # of the embedding, drawn as lines
HEADS = (0, 1)  # of the attention
MNIST_IMAGES = 50  # in the grid

# File names and titles of the blocks.
BLOCKS = {
    "down": (
        "downsample_block",
        "downsampling block: residual blocks, attention, stride-2 convolution",
    ),
    "bottleneck": ("bottleneck", "bottleneck: residual blocks and attention"),
    "upsample": (
        "upsample_block",
        "upsampling block: transposed convolution, skip, residual blocks, attention",
    ),
}
Pictures = Iterator[tuple[str, Figure]]  # file names and figures


def main() -> None:
    args = script_parsers.visualize_components().parse_args()

    style.use(args.style)
    names = [part for part in PARTS if part not in args.skip]
    formats = args.figures.split(",")
    try:
        for name, figure in pictures(names, args):
            print(figures.save(figure, args.outdir / name, formats), flush=True)
    except (OSError, ValueError) as error:
        sys.exit(in_one_line(error))


def pictures(names: list[str], args: argparse.Namespace) -> Pictures:
    """All pictures of these parts.

    Raises:
        ValueError, OSError: a device, a checkpoint or a folder cannot be used. This is found before
            the first picture is made.
    """
    device = devices.choose(args.device)
    listing = mnist_listing(args.mnist_root) if "mnist" in names else None
    network_names = [name for name in names if name in NETWORK_PARTS]
    parts = network_parts(network_names, device, args.checkpoint)

    if "time" in names:
        yield from time_pictures(device)
    for name, part in parts.items():
        if name == "mhsa":
            yield from self_attention_pictures(name, part)
        elif name == "mhca":
            yield from cross_attention_pictures(name, part)
        elif name == "unet":
            yield from unet_pictures(name, part)
        else:
            yield from block_pictures(name, part)
    if listing:
        yield from mnist_pictures(*listing)


def mnist_listing(asked: str | None) -> tuple[str, tuple[list[str], list[str], list[int]]] | None:
    """The folder of MNIST and its contents (see list_images); None, and a printed line, without
    one.

    asked: a folder that must exist; None: MNIST_ROOT, if it exists.
    """
    if asked or os.path.isdir(MNIST_ROOT):
        root = asked or MNIST_ROOT
        return root, list_images(root)
    print(
        f"skipped mnist_grid.png and mnist_label_hist.png: there is no {MNIST_ROOT}; prepare it"
        " with `python scripts/prepare_mnist.py --source FOLDER_OR_URL` or name another with"
        " --mnist-root"
    )
    return None


def network_parts(
    names: list[str],
    device: torch.device,
    checkpoint: str | None,
) -> dict[str, Part]:
    """The parts of the trained network; with random weights without one, or where it lacks a part."""
    trained = trained_parts(Pipeline.load(checkpoint, str(device)), device) if checkpoint else {}
    for name in names:
        if trained and name not in trained:
            print(f"{name} has random weights because the model has {LACKS[name]}")
    parts = {**random_parts(device), **trained}
    return {name: parts[name] for name in names}


# ---------------------------------------------------------------- the pictures of each part


def time_pictures(device: torch.device) -> Pictures:
    every = time_embedding(torch.arange(ALL_TIMESTEPS, device=device), EMBEDDING_DIM).cpu().numpy()
    embedding = every[list(TIMESTEPS)]
    yield "time_embedding_heatmap.png", draw.time_embedding_heatmap(embedding, TIMESTEPS, every)

    first_frequencies = frequencies(EMBEDDING_DIM)[:FIRST_DIMS].numpy()
    lines = draw.time_embedding_lines(embedding[:, :FIRST_DIMS], TIMESTEPS, first_frequencies)
    yield f"time_embedding_first{FIRST_DIMS}.png", lines


def self_attention_pictures(name: str, part: Part) -> Pictures:
    weights = part.weights().numpy()
    causal = part.weights(causal=True).numpy()
    for head in HEADS:
        title = f"self-attention, head {head} of {len(weights)}\n({part.origin})"
        figure = draw.self_attention(weights[head], causal[head], title, part.image, part.grid)
        yield f"{name}_head{head}.png", figure


def cross_attention_pictures(name: str, part: Part) -> Pictures:
    weights = part.weights().numpy()
    for head in HEADS:
        title = f"cross-attention, head {head} of {len(weights)}\n({part.origin})"
        figure = draw.cross_attention(weights[head], part.context, title, part.image, part.grid)
        yield f"{name}_head{head}.png", figure


def block_pictures(name: str, part: Part) -> Pictures:
    file, title = BLOCKS[name]
    rows = [_feature_maps(name, part.on_gradient())]
    if part.image is not None:
        # A trained network also shows what it makes of a noisy image.
        rows.append([*_feature_maps(name, part), (draw.GIVEN, part.image)])
    yield f"{file}_channel0.png", draw.feature_maps(rows, f"{title}\n({part.origin})")


def _feature_maps(name: str, part: Part) -> list[tuple[str, NDArray]]:
    """Titles and channel 0 of each input of a block and of its output."""
    inputs = ("input", "skip") if name == "upsample" else ("input",)
    batches = [(what, x.cpu()) for what, x in zip(inputs, part.given) if x is not None]
    batches.append(("output", part.output()))

    maps = []
    for what, x in batches:
        _, channels, height, width = x.shape
        maps.append((f"{what}, channel 0 of {channels}: {height}x{width}", x[0, 0].numpy()))
    return maps


def unet_pictures(name: str, part: Part) -> Pictures:
    x_t, t = (x.cpu() for x in part.given[:2] if x is not None)
    output = stretched(part.output())
    rows = []
    for i, step in enumerate(t.expand(len(x_t))):
        given = "x_t" if i else "a gradient"
        row = [
            (f"{given} at t = {int(step)}", x_t[i].numpy()),
            ("output, scaled to fill the range", output[i].numpy()),
        ]
        if part.x_0 is not None:
            row.append(("predicted x_0", part.x_0[i].numpy()))
        rows.append(row)
    yield f"{name}_io.png", draw.images(rows, f"UNet from end to end ({part.origin})")


def mnist_pictures(root: str, listing: tuple[list[str], list[str], list[int]]) -> Pictures:
    classes, paths, labels = listing
    chosen = random_rows(len(paths), MNIST_IMAGES, seed=0)
    pixels, readable = read_images([paths[i] for i in chosen])
    images, shown = ImageSet(pixels, torch.tensor(labels)[chosen][readable], classes)[:]
    names = [classes[label] for label in shown]
    title = f"{len(images)} of the {len(paths):,} images in {root}, in random order"
    yield "mnist_grid.png", draw.image_grid(images.numpy(), names, title)

    counts = {name: labels.count(i) for i, name in enumerate(classes)}
    title = f"labels of the {len(paths):,} images in {root}"
    yield "mnist_label_hist.png", draw.label_histogram(counts, title)


if __name__ == "__main__":
    main()
