"""Pictures of a network's parts: `python scripts/visualize_components.py [--checkpoint FILE] [--skip mnist ...]`.

With random weights, or those of a trained network for images.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/

import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from images import MNIST_ROOT
from images.image_files import list_images, read_images
from images.sets import ImageSet, choose
from nets.embedding import frequencies, time_embedding
from pipeline import Pipeline
from runtime import device as devices
from viz import components as draw
from viz import stills as figures
from viz import style
from viz.network_parts import LACKS, Part, random_parts, stretched, trained_parts

NETWORKS = ("mhsa", "mhca", "down", "bottleneck", "upsample", "unet")
PARTS = ("time", *NETWORKS, "mnist")
TIMESTEPS, ALL_STEPS, DIM, FIRST = (0, 1, 10, 100), 1000, 320, 64
GRID = 50  # images
BLOCKS = {
    "down": ("downsample_block", "downsampling block: residual blocks, attention, stride-2 convolution"),
    "bottleneck": ("bottleneck", "bottleneck: residual blocks and attention"),
    "upsample": (
        "upsample_block",
        "upsampling block: transposed convolution, skip, residual blocks, attention",
    ),
}
Pictures = Iterator[tuple[str, Figure]]  # each with the name of its file


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of a network's parts and of MNIST.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")
    parser.add_argument("--outdir", default="artifacts", type=Path, metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=PARTS, metavar="PART", help=f"parts to skip, of {', '.join(PARTS)}"
    )
    parser.add_argument("--mnist-root", metavar="DIR", help=f"default: {MNIST_ROOT}, if there is one")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="of a model of images, or its run folder: trained weights instead of random ones",
    )
    parser.add_argument("--figures", default="png", metavar="FORMATS", help="such as png,pdf; default: %(default)s")
    parser.add_argument("--style", choices=style.STYLES, default="light", help="default: %(default)s")
    args = parser.parse_args()
    style.use(args.style)
    try:
        for name, figure in pictures([p for p in PARTS if p not in args.skip], args):
            print(figures.save(figure, args.outdir / name, args.figures.split(",")), flush=True)
    except (OSError, ValueError) as error:
        sys.exit(" ".join(str(error).split()))


def pictures(names: list[str], args: argparse.Namespace) -> Pictures:
    """All the pictures of these parts.

    Raises:
        ValueError, OSError: a device, a checkpoint or a folder that cannot be used; before the first picture.
    """
    device = devices.choose(args.device)
    listing = mnist_listing(args.mnist_root) if "mnist" in names else None
    parts = network_parts([name for name in names if name in NETWORKS], device, args.checkpoint)
    if "time" in names:
        yield from of_time(device)
    of = {"mhsa": of_self_attention, "mhca": of_cross_attention, "unet": of_unet}
    for name, part in parts.items():
        yield from of.get(name, of_block)(name, part)
    if listing:
        yield from of_mnist(*listing)


def mnist_listing(asked: str | None) -> tuple[str, tuple[list[str], list[str], list[int]]] | None:
    """The folder of MNIST and its contents (list_images); None, and a printed line, if there is none."""
    if asked or os.path.isdir(MNIST_ROOT):
        return asked or MNIST_ROOT, list_images(asked or MNIST_ROOT)
    print(
        f"skipped mnist_grid.png and mnist_label_hist.png: there is no {MNIST_ROOT}; prepare it with"
        " `python scripts/prepare_mnist.py --source FOLDER_OR_URL` or name another with --mnist-root"
    )
    return None


def network_parts(names: list[str], device: torch.device, checkpoint: str | None) -> dict[str, Part]:
    """Parts of the trained network; with random weights without a checkpoint, or where the network lacks one."""
    own = trained_parts(Pipeline.load(checkpoint, str(device)), device) if checkpoint else {}
    for name in names:
        if own and name not in own:
            print(f"{name} has random weights because the model has {LACKS[name]}")
    both = random_parts(device) | own
    return {name: both[name] for name in names}


# ---------------------------------------------------------------- the pictures of each part


def of_time(device: torch.device) -> Pictures:
    every = time_embedding(torch.arange(ALL_STEPS, device=device), DIM).cpu().numpy()
    embedding = every[list(TIMESTEPS)]
    yield "time_embedding_heatmap.png", draw.time_embedding_heatmap(embedding, TIMESTEPS, every)
    first = draw.time_embedding_lines(embedding[:, :FIRST], TIMESTEPS, frequencies(DIM)[:FIRST].numpy())
    yield f"time_embedding_first{FIRST}.png", first


def of_self_attention(name: str, part: Part) -> Pictures:
    weights, causal = part.weights().numpy(), part.weights(causal=True).numpy()
    for head in (0, 1):
        title = f"self-attention, head {head} of {len(weights)}\n({part.origin})"
        yield f"{name}_head{head}.png", draw.self_attention(weights[head], causal[head], title, part.image, part.grid)


def of_cross_attention(name: str, part: Part) -> Pictures:
    weights = part.weights().numpy()
    for head in (0, 1):
        title = f"cross-attention, head {head} of {len(weights)}\n({part.origin})"
        figure = draw.cross_attention(weights[head], part.context, title, part.image, part.grid)
        yield f"{name}_head{head}.png", figure


def of_block(name: str, part: Part) -> Pictures:
    file, title = BLOCKS[name]
    rows = [_maps(name, part.on_gradient())]
    if part.image is not None:  # of a trained network also what it makes of a real input
        rows.append([*_maps(name, part), (draw.GIVEN, part.image)])
    yield f"{file}_channel0.png", draw.feature_maps(rows, f"{title}\n({part.origin})")


def _maps(name: str, part: Part) -> list[tuple[str, NDArray]]:
    """Channel 0 of what a block is given and of what it makes of that."""
    maps = zip(("input", "skip") if name == "upsample" else ("input",), part.given)
    batches = [(what, x.cpu()) for what, x in maps if x is not None] + [("output", part.output())]
    return [(f"{what}, channel 0 of {len(x[0])}: {x.shape[2]}x{x.shape[3]}", x[0, 0].numpy()) for what, x in batches]


def of_unet(name: str, part: Part) -> Pictures:
    x_t, t = (x.cpu() for x in part.given[:2] if x is not None)
    columns = [("{what} at t = {t}", x_t), ("output, scaled to fill the range", stretched(part.output()))]
    if part.x_0 is not None:
        columns.append(("predicted x_0", part.x_0))
    rows = [
        [(title.format(t=int(when), what="x_t" if i else "a gradient"), images[i].numpy()) for title, images in columns]
        for i, when in enumerate(t.expand(len(x_t)))
    ]
    yield f"{name}_io.png", draw.images(rows, f"UNet from end to end ({part.origin})")


def of_mnist(root: str, listing: tuple[list[str], list[str], list[int]]) -> Pictures:
    classes, paths, labels = listing
    some = choose(len(paths), GRID, seed=0)
    pixels, good = read_images([paths[i] for i in some])
    images, drawn = ImageSet(pixels, torch.tensor(labels)[some][good], classes)[:]
    title = f"{len(images)} of the {len(paths):,} images in {root}, in random order"
    yield "mnist_grid.png", draw.image_grid(images.numpy(), [classes[label] for label in drawn], title)
    counts = {name: labels.count(i) for i, name in enumerate(classes)}
    yield (
        "mnist_label_hist.png",
        draw.label_histogram(counts, f"labels of the {len(paths):,} images in {root}"),
    )


if __name__ == "__main__":
    main()
