"""Random edits of a folder of images: `python -m tests.campaigns.image_edits 300`.

After each edit, by a tool that people use, the data that a training reads through the image cache
must be those of the files, decoded without it. tests/images/test_image_edits.py tries a few.

All files have the same size, and each edit restores the time of what it has written. Only a look
at more than size and time can therefore notice it.
"""

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from dataset import make_sets
from images import cache
from images.sets import ImageSet, shuffled, split_fifth
from training.checksum import checksum

SIDE = 80  # 200 grey images of this side have just more bytes than cache.MIN_CACHED_BYTES
CLASSES = ("0", "1", "2", "3", "linked")
IMAGES_OF_A_CLASS = 40
MODIFIED = 1_600_000_000  # seconds, of every file at all times
SETTLING_SECONDS = 0.05  # so short that a campaign does not last an hour; a kernel's tick is 0.004
RACING = 0.4  # the share of edits that are read at once, before the files have settled


class Folder:
    """A folder of images, and what the edits need beside it.

    root: the folder with the classes. It is a git repository with the branches "main" and "other".
    spare: a new image outside of it.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pixels = np.random.default_rng(seed)
        self.root = place / "data" / "tree"
        self.spare = place / "spare.bmp"
        self.stores = [place / "stores" / "a", place / "stores" / "b"]
        for folder in [*(self.root / name for name in CLASSES[:-1]), *self.stores]:
            folder.mkdir(parents=True)
            for i in range(IMAGES_OF_A_CLASS):
                self.draw(folder / f"{i:02d}.bmp")
        (self.root / CLASSES[-1]).symlink_to(self.stores[0])
        self._commit_two_branches()
        self.restore_times()

    def draw(self, path: Path) -> None:
        """Write an image of random pixels. Its size in bytes is that of all others."""
        pixels = self.pixels.integers(256, size=(SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        os.utime(path, (MODIFIED, MODIFIED))

    def run(self, *words: object) -> None:
        """Run a command in the folder."""
        line = [str(word) for word in words]
        subprocess.run(line, cwd=self.root, check=True, capture_output=True)

    def any_file(self) -> Path:
        """A file of a class folder that is no link."""
        name = self.rng.choice(CLASSES[:-1])
        files = [path for path in sorted((self.root / name).iterdir()) if not path.is_symlink()]
        return self.rng.choice(files)

    def restore_times(self) -> None:
        """Give all files that have another time the common one. The others stay untouched."""
        for path in [*self.root.glob("*/*.bmp"), *self.stores[0].iterdir(), *self.stores[1].iterdir()]:
            if path.stat().st_mtime != MODIFIED:
                os.utime(path, (MODIFIED, MODIFIED))

    def _commit_two_branches(self) -> None:
        git = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        self.run("git", "init", "-q", "-b", "main")
        self.run("git", "add", ".")
        self.run(*git, "commit", "-qm", "main")
        self.run("git", "checkout", "-qb", "other")
        for name in CLASSES[:2]:
            for path in sorted((self.root / name).iterdir())[::4]:
                self.draw(path)
                path.touch()  # git, too, sees no change in a file of the same size, time and second
        self.run(*git, "commit", "-qam", "other")
        self.run("git", "checkout", "-q", "main")


# ---------------------------------------------------------------- edits


def swap_files(folder: Folder) -> None:
    first, second = folder.any_file(), folder.any_file()
    if first != second:
        aside = folder.spare
        folder.run("mv", first, aside)
        folder.run("mv", second, first)
        folder.run("mv", aside, second)


def swap_classes(folder: Folder) -> None:
    first, second = folder.rng.sample(CLASSES[:-1], 2)
    folder.run("mv", first, "aside")
    folder.run("mv", second, first)
    folder.run("mv", "aside", second)


def copy_over(folder: Folder) -> None:
    folder.draw(folder.spare)
    folder.run("cp", "-p", folder.spare, folder.any_file())


def copy_to_a_new_file(folder: Folder) -> None:
    folder.draw(folder.spare)
    folder.run("cp", "-p", "--remove-destination", folder.spare, folder.any_file())


def move_over(folder: Folder) -> None:
    folder.draw(folder.spare)
    folder.run("mv", "-f", folder.spare, folder.any_file())


def synchronise(folder: Folder) -> None:
    folder.draw(folder.spare)
    folder.run("rsync", "-t", "--ignore-times", folder.spare, folder.any_file())


def synchronise_in_place(folder: Folder) -> None:
    folder.draw(folder.spare)
    folder.run("rsync", "-t", "--ignore-times", "--inplace", folder.spare, folder.any_file())


def unpack(folder: Folder) -> None:
    target = folder.any_file()
    with tempfile.TemporaryDirectory() as elsewhere:
        path = Path(elsewhere, target.relative_to(folder.root))
        path.parent.mkdir()
        folder.draw(path)
        folder.run("tar", "-C", elsewhere, "-cf", folder.spare, path.relative_to(elsewhere))
    folder.run("tar", "-xf", folder.spare)


def switch_branches(folder: Folder) -> None:
    branch = folder.rng.choice(["main", "other"])
    folder.run("git", "checkout", "-qf", branch)


def check_out_a_file(folder: Folder) -> None:
    branch = folder.rng.choice(["main", "other"])
    folder.run("git", "checkout", branch, "--", folder.rng.choice(CLASSES[:-1]))


def link_class_elsewhere(folder: Folder) -> None:
    store = folder.rng.choice(folder.stores)
    folder.run("ln", "-sfn", store, CLASSES[-1])


def link_file(folder: Folder) -> None:
    store = folder.rng.choice(folder.stores)
    target = folder.rng.choice(sorted(store.iterdir()))
    folder.run("ln", "-sf", target, folder.any_file())


def hard_link_file(folder: Folder) -> None:
    store = folder.rng.choice(folder.stores)
    target = folder.rng.choice(sorted(store.iterdir()))
    folder.run("ln", "-f", target, folder.any_file())


def write_in_place(folder: Folder) -> None:
    folder.draw(folder.spare)
    target = folder.any_file()
    folder.run("dd", f"if={folder.spare}", f"of={target}", "conv=notrunc")
    folder.run("touch", "-r", folder.spare, target)


def write_behind_a_link(folder: Folder) -> None:
    folder.draw(folder.spare)
    store = folder.rng.choice(folder.stores)
    folder.run("cp", "-p", folder.spare, folder.rng.choice(sorted(store.iterdir())))


def add_a_file(folder: Folder) -> None:
    folder.draw(folder.any_file().with_name(f"new{folder.rng.randrange(5)}.bmp"))


def remove_a_new_file(folder: Folder) -> None:
    for path in sorted(folder.root.glob("*/new*.bmp"))[:1]:
        folder.run("rm", path)


def change_no_pixel(folder: Folder) -> None:
    folder.run("chmod", "u+w", folder.any_file())


EDITS = [
    swap_files,
    swap_classes,
    copy_over,
    copy_to_a_new_file,
    move_over,
    unpack,
    switch_branches,
    check_out_a_file,
    link_class_elsewhere,
    link_file,
    hard_link_file,
    write_in_place,
    write_behind_a_link,
    add_a_file,
    remove_a_new_file,
    change_no_pixel,
]
if shutil.which("rsync"):
    EDITS += [synchronise, synchronise_in_place]


# ---------------------------------------------------------------- the campaign


class Outcome(NamedTuple):
    """What a campaign tried.

    edits: how often each edit was made.
    decoded: readings in which image files were opened.
    cached: readings in which none was.
    wrong: the edits after which the data were not those of the files.
    """

    edits: Counter[str]
    decoded: int
    cached: int
    wrong: list[str]


def campaign(place: Path, edits: int, seed: int) -> Outcome:
    """Edit a folder that many times, and read it twice after each edit."""
    folder = Folder(place, seed)
    made: Counter[str] = Counter()
    wrong = []
    decodings = []
    readings = 0

    real = cache.SETTLING_SECONDS, cache.read_images
    cache.SETTLING_SECONDS = SETTLING_SECONDS
    cache.read_images = lambda *args: decodings.append(1) or real[1](*args)
    try:
        for number in range(edits):
            edit = folder.rng.choice(EDITS)
            edit(folder)
            folder.restore_times()
            made[edit.__name__] += 1
            is_racing = folder.rng.random() < RACING
            if not is_racing:
                time.sleep(1.5 * SETTLING_SECONDS)

            expected = checksum(decoded(folder.root))
            for _ in range(2):
                readings += 1
                if checksum(read_for_training(folder.root)) != expected:
                    wrong.append(f"{number} {edit.__name__}")
    finally:
        cache.SETTLING_SECONDS, cache.read_images = real
    return Outcome(made, len(decodings), readings - len(decodings), wrong)


def read_for_training(root: Path) -> ImageSet:
    """The training images of a folder, as train.py reads them."""
    with redirect_stdout(StringIO()):
        data, _ = make_sets("images", None, 0, root=str(root), test_root=None, on_bad_image="skip")
    assert isinstance(data, ImageSet)
    return data


def decoded(root: Path) -> ImageSet:
    """The training images of a folder, decoded by Pillow alone."""
    pixels = []
    labels = []
    for label, name in enumerate(CLASSES):
        for path in sorted((root / name).glob("*.bmp")):
            pixels.append(np.asarray(Image.open(path).convert("L")))
            labels.append(label)
    stacked = torch.from_numpy(np.stack(pixels))[:, None]
    whole = ImageSet(stacked, torch.tensor(labels), list(CLASSES))
    data, _ = split_fifth(shuffled(whole, 0))
    return data


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("edits", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        outcome = campaign(Path(place), args.edits, args.seed)
    seconds = time.monotonic() - begin
    print(f"{args.edits} edits in {seconds:.0f} s: {dict(outcome.edits)}")
    print(f"{outcome.cached} readings from the cache, {outcome.decoded} of the files")
    if outcome.wrong:
        raise SystemExit(f"{len(outcome.wrong)} readings were wrong, after edits {', '.join(outcome.wrong)}")
    print("all readings were right")


if __name__ == "__main__":
    main()
