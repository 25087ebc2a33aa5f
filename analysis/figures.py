"""Draw figures of a run: each function makes one matplotlib Figure from a table.

python -m analysis.figures runs/mnist5k-permuted-32 accuracy.png
python -m analysis.figures runs/units recall.png --figure recall_by_masks
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.allocation import masks_by_task
from analysis.commandline import Parser, figure_file, run_command, run_directory
from analysis.load import load
from analysis.recovery import wrong_bits_by_step
from analysis.stored import Layout
from analysis.summary import (
    RECALL_SETTINGS,
    RECALL_WAYS,
    RESERVOIRS,
    SETTINGS,
    bootstrap,
    largest_recalls,
    largest_samples,
    told_apart,
    wilson,
)


def _lines(evaluations: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Divide rows of the table `evaluations` into the lines of a figure.

    A line has the rows of one algorithm with one objective and the same settings. If a task was
    evaluated twice with the same settings, only the row with more batches is kept. Evaluations with
    distractors get separate lines. Distractors are untrained masks, so these results cannot be
    compared with results without distractors.

    Returns:
        One pair per line of the figure: the label of the line, and its rows.
    """
    rows = largest_samples(evaluations)
    trained = rows["num_tasks"] - rows["num_distractors"]
    rows = rows.assign(trained=trained.where(rows["num_distractors"] > 0))
    by = ["algorithm", "objective", "trained", *SETTINGS]
    found = list(rows.groupby(by, dropna=False))
    ways = pd.DataFrame([key for key, _ in found], columns=by)
    labels = []
    for way, apart in zip(ways.itertuples(), told_apart(ways, [*SETTINGS, "trained"]), strict=True):
        objective = f" {way.objective}" if isinstance(way.objective, str) else ""
        beside = "" if np.isnan(way.trained) else ", with untrained masks"
        labels.append(f"{way.algorithm}{objective}{beside}{apart}")
    return [(label, part) for label, (_, part) in zip(labels, found, strict=True)]


def accuracy_by_masks(evaluations: pd.DataFrame) -> Figure:
    """Draw accuracy and task accuracy against the number of masks in the superposition.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A figure. Left: accuracy with the task given (GG), and with the task inferred (GNu: if the
        inferred task is wrong, the accuracy counts as 0). Right: the fraction of batches whose task
        was inferred right. Points are means over tasks. Bars are 95 % intervals from the normal
        distribution.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    lines = _lines(evaluations)
    for label, rows in lines:
        for axes, column in ((left, "accuracy_gnu"), (right, "task_accuracy")):
            stats = rows.groupby("num_tasks")[column].agg(["mean", "sem"]).fillna(0)
            axes.errorbar(
                stats.index, stats["mean"], yerr=1.96 * stats["sem"], marker="o", ms=4, label=label
            )
    own = evaluations[evaluations["num_distractors"] == 0].sort_values("num_batches")
    given = own.drop_duplicates(["num_tasks", "task_id"], keep="last")
    given = given.groupby("num_tasks")["accuracy_gg"].mean()
    left.plot(given.index, given, "k--", label="task given (GG)")
    left.set(ylabel="accuracy", title="correct labels")
    right.set(ylabel="task accuracy", title="correctly inferred tasks")
    for axes in (left, right):
        axes.set(xlabel="masks in the superposition", xscale="log")
        axes.grid(alpha=0.3)
    # The vertical axes start at 0.8 or lower. Otherwise the noise of a line near 1 fills the panel.
    for axes, column in ((left, "accuracy_gnu"), (right, "task_accuracy")):
        means = [rows.groupby("num_tasks")[column].mean().min() for _, rows in lines]
        axes.set_ylim(min(0.8, min(means) - 0.02), 1.005)
    left.legend(fontsize="small")
    return figure


def recall_by_masks(reservoir: pd.DataFrame) -> Figure:
    """Draw the fraction of recalled masks, and the bytes, against the number of stored masks.

    Args:
        reservoir: rows of the table `reservoir`.

    Returns:
        A figure. Left: the fraction of cues whose mask was recalled without an error. Each
        reservoir has a colour. Lines are solid for cues with flipped bits, dash-dotted for cues
        with erased bits, and dashed for cues from data. Bands are 95 % intervals by Wilson. A
        dotted vertical line is the number of masks that a reservoir can hold in theory. If masks
        were recalled twice with the same settings, the larger sample is drawn. Right: the bytes of
        each reservoir. The dashed line shows the bytes of the same masks as packed rows.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    by_rule = list(
        largest_recalls(reservoir).sort_values("num_tasks").groupby(RESERVOIRS, dropna=False)
    )
    reservoirs = _reservoirs(pd.DataFrame([key for key, _ in by_rule], columns=RESERVOIRS))
    for color, (_, of_rule) in enumerate(by_rule):
        by_way = list(of_rule.groupby(["cue", *RECALL_SETTINGS], dropna=False))
        ways = pd.DataFrame([key for key, _ in by_way], columns=["cue", *RECALL_SETTINGS])
        apart = told_apart(ways, ["most_steps", "batch_size"])
        for (_, rows), way, settings in zip(by_way, ways.itertuples(), apart, strict=True):
            low, high = wilson(rows["exact_recall"], rows["num_cues"])
            share = "" if np.isnan(way.share) else f" {way.share:.0%}"
            label = f"{reservoirs[color]}, {way.cue}{share}{settings}"
            style = {"data": "--", "erased": "-."}.get(way.cue, "-")
            left.plot(
                rows["num_tasks"], rows["exact_recall"], f"C{color}o{style}", ms=4, label=label
            )
            left.fill_between(rows["num_tasks"], low, high, color=f"C{color}", alpha=0.12)
        capacity = of_rule["capacity"].iloc[0]
        if pd.notna(capacity):
            left.axvline(capacity, color=f"C{color}", ls=":", lw=1)
        size = of_rule.groupby("num_tasks")["reservoir_bytes"].first()
        right.plot(size.index, size, f"C{color}o-", ms=4, label=reservoirs[color])
    packed = reservoir.groupby("num_tasks")["store_bytes"].first()
    right.plot(packed.index, packed, "k--", label="the masks, packed")
    left.set(
        ylabel="masks recalled without an error",
        ylim=(-0.02, 1.05),
        title="dotted: capacity in theory, for cues without errors",
    )
    right.set(ylabel="bytes", yscale="log")
    for axes in (left, right):
        axes.set(xlabel="masks stored", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def sweeps_by_masks(reservoir: pd.DataFrame) -> Figure:
    """Draw the number of sweeps of a recall against the number of stored masks.

    Args:
        reservoir: rows of the table `reservoir`.

    Returns:
        A figure with one line for each reservoir, kind of cue and settings. Points are means over
        the cues. A sweep counts if it changed a bit.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    ordered = largest_recalls(reservoir).sort_values("num_tasks")
    found = list(ordered.groupby(RECALL_WAYS, dropna=False))
    ways = pd.DataFrame([key for key, _ in found], columns=RECALL_WAYS)
    names, apart = _reservoirs(ways), told_apart(ways, RECALL_SETTINGS)
    for (_, rows), cue, name, settings in zip(found, ways["cue"], names, apart, strict=True):
        axes.plot(rows["num_tasks"], rows["steps"], "o-", ms=4, label=f"{name}, {cue}{settings}")
    axes.set(xlabel="masks stored", ylabel="sweeps until recall ends")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _reservoirs(reservoirs: pd.DataFrame) -> list[str]:
    """Make the legend's text for each reservoir.

    Args:
        reservoirs: one row per reservoir, with the columns in RESERVOIRS.
    """
    return [
        f"{one.rule}, {one.dim} bits"
        if one.num_blocks == 1
        else f"{one.rule}, {one.num_blocks} of {one.dim} bits"
        for one in reservoirs.itertuples()
    ]


def objectives_compared(evaluations: pd.DataFrame) -> Figure:
    """Compare the objectives H and G, in one panel for each algorithm that was used with both.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A figure. The vertical axis is the fraction of wrongly inferred tasks, 1 - task accuracy.
        The horizontal axis is the number of masks. Points are means over tasks. Bands are 95 %
        intervals by bootstrap over tasks. A mean of 0 is drawn at the bottom of the axis.

    Raises:
        ValueError: no algorithm was used with more than one objective.
    """
    own = evaluations[evaluations["num_distractors"] == 0]
    both = own.groupby("algorithm")["objective"].nunique()
    algorithms = list(both[both > 1].index)
    if not algorithms:
        raise ValueError(
            "evaluations must have an algorithm with objectives H and G, got none: run "
            "harness/evaluate.py run_dir=RUN evaluate.objectives=[H,G]"
        )
    figure = Figure(figsize=(4.2 * len(algorithms) + 1.5, 3.8), layout="constrained")
    panels = figure.subplots(1, len(algorithms), sharey=True, squeeze=False)[0]
    for axes, algorithm in zip(panels, algorithms, strict=True):
        _errors(axes, own[own["algorithm"] == algorithm])
        _against_masks(axes, title=algorithm)
    panels[0].set_ylabel("fraction of wrong tasks")
    return figure


def algorithms_compared(evaluations: pd.DataFrame) -> Figure:
    """Compare algorithms, such as one-shot, ranked and binary, in one panel per objective.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A figure. The vertical axis is the fraction of wrongly inferred tasks, 1 - task accuracy.
        The horizontal axis is the number of masks. Each panel has one line per algorithm.

    Raises:
        ValueError: there are fewer than two algorithms.
    """
    own = evaluations[evaluations["num_distractors"] == 0]
    if own["algorithm"].nunique() < 2:
        raise ValueError(
            "evaluations must have at least two algorithms, got fewer: run harness/evaluate.py "
            "run_dir=RUN evaluate.algorithms=[one_shot,binary]"
        )
    groups = list(own.fillna({"objective": "no objective"}).groupby("objective"))
    figure = Figure(figsize=(4.2 * len(groups) + 1.5, 3.8), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, (objective, of_objective) in zip(panels, groups, strict=True):
        _errors(axes, of_objective)
        _against_masks(axes, title=f"objective {objective}")
    panels[0].set_ylabel("fraction of wrong tasks")
    return figure


def _errors(axes: Axes, evaluations: pd.DataFrame) -> None:
    """Draw the fraction of wrongly inferred tasks against the number of masks; see _lines."""
    for label, rows in _lines(evaluations):
        wrong = [(k, 1 - group) for k, group in rows.groupby("num_tasks")["task_accuracy"]]
        sizes = [k for k, _ in wrong]
        bands = [bootstrap(values) for _, values in wrong]
        means = [values.mean() for _, values in wrong]
        [line] = axes.plot(sizes, means, "o-", ms=4, label=label)
        low, high = zip(*bands, strict=True)
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15)
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(0, 1.05)


def time_by_masks(evaluations: pd.DataFrame, row_bytes: int, bandwidth: float) -> Figure:
    """Draw the time and the bytes that an inference takes, against the number of masks.

    Args:
        evaluations: rows of the table `evaluations`.
        row_bytes: bytes of a packed mask.
        bandwidth: bytes per second that can be read from memory.

    Returns:
        A figure. Left: seconds per inference. A line is the median over tasks, and a band goes from
        the lower to the upper quartile. The dashed line is the time to read all packed masks once
        at the speed `bandwidth`. Right: the bytes of masks that one gradient reads. The dashed line
        shows the bytes of all packed masks.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    own = evaluations[evaluations["num_distractors"] == 0]
    for label, rows in _lines(own):
        seconds = rows.groupby("num_tasks")["seconds_per_inference"]
        middle = seconds.median()
        [line] = left.plot(middle.index, middle, "o-", ms=4, label=label)
        low, high = seconds.quantile(0.25), seconds.quantile(0.75)
        left.fill_between(middle.index, low, high, color=line.get_color(), alpha=0.15)
        share = rows.groupby("num_tasks")["bits_read_fraction"].mean()
        right.plot(share.index, share * share.index * row_bytes, "o-", ms=4, label=label)
    sizes = np.array(sorted(own["num_tasks"].unique()))
    wall = f"lower bound of a full scan, at {bandwidth / 1e9:.1f} GB/s"
    left.plot(sizes, sizes * row_bytes / bandwidth, "k--", label=wall)
    right.plot(sizes, sizes * row_bytes, "k--", label="all packed masks")
    left.set(ylabel="seconds per inference", yscale="log")
    right.set(ylabel="mask bytes read per gradient", yscale="log")
    for axes in (left, right):
        _against_masks(axes)
    return figure


# Names of columns of storage_bytes. A run needs these three to classify images.
PACKED_ROWS, SHARED_ARRAYS, WEIGHTS_SEED = "packed rows", "shared arrays", "seed of the weights"


def storage_bytes(
    num_masks: np.ndarray, masks: Layout, density: float, reservoir: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compute how many bytes masks need, for several ways to store the masks.

    Args:
        num_masks: the numbers of masks for which the bytes are computed.
        masks: the layout of the masks.
        density: mean fraction of gains that are not zero, in [0, 1].
        reservoir: rows of the table `reservoir`, or None if the run does not have this table.

    Returns:
        One row per number of masks, and one column for each way to store the masks: as packed rows,
        as float32 gains, as lists of the indices of gains that are not zero (4 bytes per index), or
        in the largest reservoir of each rule. States without planes of bits have no index lists.
        The other columns have the bytes of arrays that tasks share, the bytes of the fixed weights,
        and the 8 bytes of the seed from which the fixed weights can be made.
    """
    kept = round(density * masks.num_gains)
    sizes = {
        PACKED_ROWS: num_masks * masks.row_bytes,
        "float32": num_masks * masks.num_gains * 4,
    }
    if masks.layers:
        sizes["index lists"] = num_masks * kept * 4
    if masks.shared_bytes:
        sizes[SHARED_ARRAYS] = np.full(len(num_masks), masks.shared_bytes)
    if reservoir is not None:
        for rule, most in reservoir.groupby("rule")["reservoir_bytes"].max().items():
            sizes[f"reservoir, {rule}"] = np.full(len(num_masks), most)
    if not masks.trains_weights:
        sizes["fixed weights"] = np.full(len(num_masks), masks.num_weights * 4)
        sizes[WEIGHTS_SEED] = np.full(len(num_masks), 8)
    return pd.DataFrame(sizes, index=pd.Index(num_masks, name="num_tasks"))


def bytes_by_masks(sizes: pd.DataFrame) -> Figure:
    """Draw the bytes of stored masks against the number of masks, a line for each way of storage.

    Args:
        sizes: the result of storage_bytes.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for storage in sizes:
        constant = sizes[storage].nunique() == 1
        axes.plot(sizes.index, sizes[storage], "--" if constant else "-", label=storage)
    axes.set(ylabel="bytes", yscale="log")
    _against_masks(axes)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def masks_by_layer(statistics: pd.DataFrame) -> Figure:
    """Draw the density and the overlap of masks, layer by layer.

    Args:
        statistics: the result of stored.layer_statistics.

    Returns:
        A figure. Left: the fraction of ones in a mask. Right: the fraction of ones that two masks
        have in common. The horizontal bar shows this fraction for independent random masks.
        Vertical lines go from the smallest to the largest value.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    place = np.arange(len(statistics))
    titles = ("fraction of ones in a mask", "fraction of ones that two masks share")
    for axes, column, title in zip(panels, ("density", "overlap"), titles, strict=True):
        mean = statistics[column]
        ends = [mean - statistics[f"{column}_low"], statistics[f"{column}_high"] - mean]
        axes.errorbar(place, mean, yerr=np.maximum(ends, 0), fmt="o", capsize=3)
        axes.set(title=title, xlim=(-0.5, len(statistics) - 0.5))
        axes.set_xticks(place, statistics["layer"])
        axes.grid(alpha=0.3, axis="y")
    panels[1].plot(place, statistics["chance"], "k_", ms=22, label="by chance")
    panels[1].legend(fontsize="small")
    return figure


def rotations_confused(evaluations: pd.DataFrame, angles: np.ndarray) -> Figure:
    """Draw the task accuracy of rotations against the angle to the nearest other stored task.

    The table does not say which task was inferred. But if inference confuses tasks with similar
    angles, the figure shows a low task accuracy for these tasks.

    Args:
        evaluations: rows of the table `evaluations`.
        angles: the angle of each task in degrees. The index is the task number.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    own = evaluations[(evaluations["num_distractors"] == 0) & (evaluations["num_tasks"] > 1)]
    for way, of_way in _lines(own):
        for k, rows in of_way.groupby("num_tasks"):
            nearest = nearest_angles(angles[:k])[rows["task_id"]]
            label = f"{way}, {k} masks"
            axes.plot(
                nearest, rows["task_accuracy"], "o", ms=4, alpha=0.5, label=label, rasterized=True
            )
    axes.set(
        xlabel="degrees to the nearest other task",
        ylabel="task accuracy",
        ylim=(-0.02, 1.02),
        xscale="log",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def nearest_angles(angles: np.ndarray) -> np.ndarray:
    """Compute the distance in degrees from each angle to the nearest other angle, on a circle.

    Args:
        angles: two or more angles in degrees.
    """
    order = np.argsort(angles % 360)
    turned = angles[order] % 360
    gaps = np.diff(turned, append=turned[0] + 360)
    nearest = np.empty(len(angles))
    nearest[order] = np.minimum(gaps, np.roll(gaps, 1))
    return nearest


def _against_masks(axes: Axes, title: str = "") -> None:
    axes.set(xlabel="masks in the superposition", xscale="log", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


FIGURES = {
    "accuracy_by_masks": (accuracy_by_masks, "evaluations"),
    "objectives_compared": (objectives_compared, "evaluations"),
    "algorithms_compared": (algorithms_compared, "evaluations"),
    "recall_by_masks": (recall_by_masks, "reservoir"),
    "masks_by_task": (masks_by_task, "allocation"),
    "sweeps_by_masks": (sweeps_by_masks, "reservoir"),
    "wrong_bits_by_step": (wrong_bits_by_step, "recovery"),
}


def main() -> None:
    """Draw one figure of a run into a file."""
    parser = Parser(__doc__, "python -m analysis.figures runs/mnist5k-permuted-32 accuracy.svg")
    parser.add_argument("run_dir", type=run_directory, help="run directory, or its URL")
    parser.add_argument("file", type=figure_file, help="file to write, such as accuracy.svg")
    parser.add_argument("--figure", choices=FIGURES, default="accuracy_by_masks")
    arguments = parser.parse_args()
    draw, table = FIGURES[arguments.figure]
    draw(load(arguments.run_dir, table).to_pandas()).savefig(arguments.file, dpi=120)


if __name__ == "__main__":
    run_command(main)
