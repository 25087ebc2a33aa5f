"""Draw figures of a run: each function makes one matplotlib Figure from a table.

python -m analysis.figures runs/mnist5k-permuted-32 accuracy.png
python -m analysis.figures runs/units recall.png --figure recall_by_masks
"""

from analysis.allocation import masks_by_task
from analysis.commandline import Parser, figure_file, run_command, run_directory
from analysis.drawing.accuracy import accuracy_by_masks, algorithms_compared, objectives_compared
from analysis.drawing.confusion import tasks_confused
from analysis.drawing.cost import time_by_masks
from analysis.drawing.masks import masks_by_layer, nearest_angles, rotations_confused
from analysis.drawing.reservoirs import recall_by_masks, sweeps_by_masks
from analysis.drawing.storage import bytes_by_masks, storage_bytes
from analysis.drawing.training import training_over_time
from analysis.load import load
from analysis.recovery import wrong_bits_by_step

__all__ = [
    "accuracy_by_masks",
    "algorithms_compared",
    "bytes_by_masks",
    "masks_by_layer",
    "masks_by_task",
    "nearest_angles",
    "objectives_compared",
    "recall_by_masks",
    "rotations_confused",
    "storage_bytes",
    "sweeps_by_masks",
    "tasks_confused",
    "time_by_masks",
    "training_over_time",
    "wrong_bits_by_step",
]

# Name on the command line -> the function, and the table that it draws.
FIGURES = {
    "accuracy_by_masks": (accuracy_by_masks, "evaluations"),
    "objectives_compared": (objectives_compared, "evaluations"),
    "algorithms_compared": (algorithms_compared, "evaluations"),
    "recall_by_masks": (recall_by_masks, "reservoir"),
    "masks_by_task": (masks_by_task, "allocation"),
    "tasks_confused": (tasks_confused, "queries"),
    "sweeps_by_masks": (sweeps_by_masks, "reservoir"),
    "training_over_time": (training_over_time, "tasks"),
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
