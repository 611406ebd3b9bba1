"""Draws docs/factors.png: python docs/factors.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from groundup.schedules import factor as F

STEPS = 1000
WARMUPS = {
    "linear(0.2)": F.linear(0.2) >> F.hold(),
    "gradual(0.2, scale=4)": F.gradual(0.2, 4) >> F.hold(),
    "cosine(0.2)": F.cosine(0.2) >> F.hold(),
    "constant(0.2, 0.1)": F.constant(0.2, 0.1) >> F.hold(),
    "exponential(0.1)": F.exponential(0.1),
    "radam(0.995)": F.radam(0.995),
    "noam(0.1)": F.noam(0.1),
}
DECAYS = {
    "wsd(0.1, 0.2)": F.wsd(0.1, 0.2),
    'wsd(0.1, 0.2, "sqrt")': F.wsd(0.1, 0.2, "sqrt"),
    'linear(0.1) >> decay("linear")': F.linear(0.1) >> F.decay("linear"),
    'linear(0.1) >> decay("cosine", floor=0.1)': F.linear(0.1) >> F.decay("cosine", floor=0.1),
    '… >> decay("exponential", floor=0.01)': F.linear(0.1) >> F.decay("exponential", floor=0.01),
    "linear(0.1) >> step_decay(0.3, every=0.3)": F.linear(0.1) >> F.step_decay(0.3, every=0.3),
}
# Paul Tol's "bright", distinct for colour-blind readers; dashes distinguish them in print.
COLOURS = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#444444"]
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-"]


def main() -> None:
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained", sharey=True)
    for axis, title, curves in zip(axes, ("warmups", "and decays"), (WARMUPS, DECAYS), strict=True):
        for (name, f), colour, dash in zip(curves.items(), COLOURS, DASHES, strict=False):
            values = [f(step, steps=STEPS) for step in range(STEPS)]
            axis.plot(values, label=name, color=colour, linestyle=dash, linewidth=1.6)
        axis.set_title(title, loc="left")
        axis.set_xlabel("completed updates of 1000")
        axis.set_ylim(0, 1.05)
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.17), ncol=2)
    axes[0].set_ylabel("factor")
    figure.savefig(Path(__file__).with_name("factors.png"), dpi=100)


if __name__ == "__main__":
    main()
