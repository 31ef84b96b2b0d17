"""The words beside a recording, in Markdown: what the picture is about, and where it stands."""

import math

from metrics.scene import Scene

COLOURS = "Colour is noise: green is clean, then yellow, orange, red."


def about(scene: Scene) -> str:
    """A few lines on what is seen, and what to try."""
    sides = {p.side for p in scene.processes}
    sees, tries = [], []
    if "forward" in sides:
        sees.append("**Forward**: each step adds a little noise, until nothing of the data is left.")
    if "reverse" in sides:
        sees.append("**Reverse**: from pure noise, the network's guesses lead back to the data.")
    sees.append(COLOURS + (" Grey: clean data." if scene.data is not None else ""))
    sees.append("Cyan: samples to follow." + (" Rings: 1 and 2 sigma of pure noise." if scene.dim == 2 else ""))
    if scene.guesses is not None:
        sees.append("White arrows: where the network believes they will end (its guess of x_0).")
    if scene.fields:
        sees.append("Blue arrows: the score, the way to where points are likelier at this noise.")
    if scene.normalised:
        sees.append("Coordinates are the network's: each with mean 0 and deviation 1 over the data.")
    else:
        sees.append("Coordinates are the data's own.")
    if len(sides) == 2:
        tries.append("Take the clock `t` instead of `step`: both sides at equal noise. They should look alike.")
    if any(f.name == "exact" for f in scene.fields):
        tries.append("Open the left panel, show `reverse/score/exact` (orange): the true score. Where do they differ?")
    if scene.dim == 2:
        tries.append("The tab *Paths in space-time*; drag it around.")
    tries.append("Space stops the clock, arrow keys step it.")
    bullets = "\n".join(f"* {line}" for line in tries)
    return "\n\n".join(sees) + f"\n\n*Try this*\n\n{bullets}\n"


def about_images(scene: Scene, named: bool) -> str:
    """The same for images; `named`: they stand in rows of one label each."""
    if scene.processes[0].side == "forward":
        sees = ["**Forward**: each step adds a little noise to every pixel, until nothing of the images is left."]
        tries = ["When could you still tell the images apart? There the network has its work to do."]
    else:
        sees = [
            "**Left**, x_t: pure noise becomes images, step by step.",
            "**Right**, the guess of x_0: what the network, seeing only x_t, believes is under the noise.",
        ]
        tries = [
            "Early on the guess is a blurred mean of all that is still possible. When does it make up its mind?",
            "Take the clock `t` and play: the images drown again.",
        ]
    sees += ["Each row was asked for one label, written at its left."] if named else []
    tries.append("Space stops the clock, arrow keys step it.")
    return "\n\n".join(sees) + "\n\n*Try this*\n\n" + "\n".join(f"* {line}" for line in tries) + "\n"


def now(scene: Scene, clock: str, moment: int) -> str:
    """Where each process stands when `clock` shows `moment`."""
    total = max(int(p.steps.max()) for p in scene.processes)
    lines = [f"## {clock} {moment} of {total}"]
    for process in scene.processes:
        steps = total - moment if clock == "step" and process.side == "reverse" else moment
        lines += [f"**{process.side}**: noised {steps} times", *_signal(scene, steps)]
        at = abs(process.steps - steps).argmin()
        if scene.distance is not None:
            lines.append(f"* distance to the data {scene.distance.by_side[process.side][at]:.3f}")
    if scene.distance is not None:
        lines.append(f"\nTwo real sets are {scene.distance.floor:.3f} apart.")
    return "\n".join(line if line.startswith("* ") else f"\n{line}\n" for line in lines)


def _signal(scene: Scene, steps: int) -> list[str]:
    if scene.alpha_bar is None:
        return []
    left = float(scene.alpha_bar[steps])
    return [f"* x = {math.sqrt(left):.2f} data + {math.sqrt(1 - left):.2f} noise"]
