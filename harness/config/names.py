"""Names that a configuration may use for things of the harness.

`supsup_core.names` has the names of the mathematics, and `harness.data.names` those of data sets.
"""

from collections.abc import Mapping

AUTO = "auto"  # stands for a value that the run chooses when it begins

DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
EXECUTORS = ("ray", "serial")

# gn: the task is given in training. nns: the task is given neither in training nor in inference.
SCENARIOS = ("gn", "nns")

ALLOCATION_RULES = ("margin", "paper")

CUES = ("flipped", "erased", "data")
DESCENT = "descent"  # the cue of gradient descent, whose results have a table of their own

# Programs that show experiments -> classes that copy a run to them.
LOGGERS: Mapping[str, str] = {
    "tensorboard": "harness.reporting.loggers.tensorboard:TensorBoard",
    "mlflow": "harness.reporting.loggers.mlflow:MLflow",
    "wandb": "harness.reporting.loggers.wandb:WandB",
}

# With `evaluate.algorithms=auto`, a run uses each of these algorithms that its engine supports. If
# the engine supports none of them, the run uses `given`, which infers nothing. The two other
# algorithms, gradient_descent and frank_wolfe, compute many gradients per inference, so a run uses
# them only if the user names them. The same is true of the objectives H_first_layer and
# G_first_layer, because they would double the number of evaluations.
DEFAULT_ALGORITHMS = ("one_shot", "one_shot_ranked", "binary", "min_entropy", "max_logit")

DEFAULT_OBJECTIVES = ("H", "G")
