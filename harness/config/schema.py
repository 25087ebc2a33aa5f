"""The schema of a run's configuration: dataclasses. Each field has a help text and limits."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.config.names import (
    ALLOCATION_RULES,
    AUTO,
    CUES,
    DEFAULT_OBJECTIVES,
    DESCENT,
    DEVICES,
    DTYPES,
    EXECUTORS,
    LOGGERS,
    SCENARIOS,
)
from harness.config.option import MISSING, knob
from harness.data.names import DATASETS
from supsup_core.knobs import OWN_OBJECT
from supsup_core.names import (
    ALGORITHMS,
    AUGMENTS,
    DECAYS,
    FAMILIES,
    METHODS,
    NETWORKS,
    NO_CHANGE,
    NO_TRANSFER,
    OBJECTIVES,
    OPTIMIZERS,
    RESERVOIR_RULES,
    TRANSFERS,
)

CONFIG_MODULE = "harness.conf"  # the folder of recipes and experiments

# Limits of numbers that neither the data nor the memory nor the disk limits. Each limit is far
# above the numbers that a run can use. Without limits, a run with a mistyped number could take
# years.
MOST_STEPS = 10**7  # per task
MOST_GRADIENTS = 10**4  # per inference
MOST_SWEEPS = 10**4  # per recall
MOST_ACTORS = 4096  # in a pool: more than any cluster has

# An object of the user's own code may take the place of a known name; see own_code.py.
_OWN = ("package.module:object", OWN_OBJECT)
# A name of a file or a folder. It must have a slash or the ending .npz, so that a wrong name of a
# data set is not taken for a folder.
_PATHS = ("a path such as images.npz or ./images", r".+\.npz|.*/.*")


@dataclass
class TrainConfig:
    """Settings of the training. `train=NAME` selects a recipe of harness/conf/train."""

    # This field accepts any text, but its type is Any. With the type str, OmegaConf would convert
    # the number 1.10 of a YAML file to the text "1.1". With Any, the value stays a number, and
    # `check` refuses it.
    name: Any = knob(
        MISSING,
        kind=str,
        help="The recipe's name, which is part of the run's folder.",
        example="paper",
    )
    steps: int = knob(
        MISSING, help="Optimiser steps per task.", at_least=1, at_most=MOST_STEPS, example=1000
    )
    batch_size: int = knob(MISSING, help="Images per step.", at_least=1, example=128)
    learning_rate: float = knob(
        MISSING, help="Learning rate of the first step.", above=0, example=1e-4
    )
    smoothing: float = knob(
        MISSING,
        help="Fraction of the running mean of squared gradients that each step keeps (rmsprop, "
        "adam).",
        at_least=0,
        below=1,
        example=0.99,
    )
    decay: str = knob(
        MISSING,
        help="linear lowers the learning rate to 0, by the same amount in each step. cosine lowers "
        "it to 0 like half a period of a cosine. none keeps the learning rate constant.",
        one_of=DECAYS,
    )
    dtype: str = knob(
        AUTO,
        instead=AUTO,
        one_of=DTYPES,
        help="Number format of the matrix products. With auto, the run measures both formats when "
        "it begins. It uses bfloat16 if bfloat16 is faster and the trainer supports it, else "
        "float32.",
    )
    block: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        help="Number of tasks that train together in one work unit. With auto, the number depends "
        "on the size of the network.",
    )
    device: str = knob(
        AUTO,
        instead=AUTO,
        one_of=DEVICES,
        help="Kind of device that trains. With auto, a GPU trains if Ray or torch finds one when "
        "the run begins. Masks depend on the kind of device, so a run keeps it. With cpu, no actor "
        "of the command gets a GPU.",
    )
    temperature: float = knob(
        1.0, above=0, help="Divisor of the logits in the loss. Above 1, the softmax is softer."
    )
    optimizer: str = knob("rmsprop", one_of=OPTIMIZERS, help="Optimiser of the scores.")
    momentum: float = knob(
        0.0,
        at_least=0,
        below=1,
        help="Fraction of the running mean (adam) or the running sum (sgd) of gradients that each "
        "step keeps.",
    )
    weight_decay: float = knob(
        0.0, at_least=0, help="L2 decay: adds weight_decay * score to the gradient of each score."
    )
    warmup: int = knob(
        0,
        at_least=0,
        at_most=MOST_STEPS,
        help="Number of first steps in which the learning rate grows linearly to "
        "train.learning_rate.",
    )
    augment: str = knob(
        NO_CHANGE,
        one_of=AUGMENTS,
        help="Random changes of training images. crop adds 4 black pixels on each side and cuts "
        "out an image of the old size. crop_flip also mirrors half of the images.",
    )
    transfer: str = knob(
        NO_TRANSFER,
        one_of=TRANSFERS,
        help="First scores of a task. none draws them at random. Otherwise they start from the "
        "tasks of earlier blocks: from the mean of their masks (mean), the mean of their scores "
        "(mean_scores, trained by autograd), the mask that one-shot inference with H finds for "
        "the first training batch (similar), the mask whose features separate the classes of the "
        "new task best (knn), the mask of the last task (last), or the mask of a random task "
        "(random). Then blocks are trained one after another, and train.block=auto means 1.",
    )
    first_learning_rate: float | None = knob(
        None,
        above=0,
        help="Value of train.learning_rate while task 0 trains the weights that all other tasks "
        "need, such as a trunk or a dense base. null means train.learning_rate.",
        example=1e-4,
    )


@dataclass
class EvaluateConfig:
    """Settings of the evaluation of task inference."""

    checkpoints: Any = knob(
        AUTO,
        kind=list[int],
        instead=AUTO,
        at_least=1,
        help="Checkpoints: numbers of masks at which the run is evaluated. At checkpoint k, tasks "
        "are inferred among the first k tasks. auto means 10, 25, 50, 100, 250 and so on, and also "
        "the number of tasks.",
    )
    algorithms: Any = knob(
        AUTO,
        kind=list[str],
        instead=AUTO,
        one_of=ALGORITHMS,
        filled=True,
        distinct=True,
        help="Algorithms of task inference. given infers nothing: each batch gets the mask of its "
        "own task. auto means all algorithms that support the network and the masks, except "
        "gradient_descent and frank_wolfe, which are slow, and given.",
    )
    objectives: list[str] = knob(
        lambda: [*DEFAULT_OBJECTIVES],
        one_of=OBJECTIVES,
        distinct=True,
        help="Objectives for the algorithms that compute gradients. H is the entropy of the "
        "outputs. G depends on the superfluous neurons. H_first_layer and G_first_layer use only "
        "the masks of the first layer.",
    )
    tasks: int | None = knob(
        50,
        at_least=1,
        help="Number of tasks that are evaluated at each checkpoint. They are spaced evenly. null "
        "means all tasks.",
    )
    batches: int | None = knob(
        4, at_least=1, help="Number of test batches per task. null means the whole test set."
    )
    batch_size: int = knob(
        128,
        at_least=1,
        help="Largest number of images per test batch. The mask of the inferred task classifies "
        "the whole batch.",
    )
    num_images: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        help="Number of images from which the task of a batch is inferred. auto means 1, or the "
        "whole batch if the network normalises over the batch. If the last batch of a task has too "
        "few images, its images are repeated.",
    )
    distractors: int = knob(
        0,
        at_least=0,
        help="Number of distractors: untrained random masks with the densities of the trained "
        "masks. If this number is above 0, the last checkpoint is evaluated a second time by "
        "one_shot and one_shot_ranked, with the trained masks and the distractors as candidates.",
    )
    log_base: int = knob(
        2,
        at_least=2,
        help="After each gradient, the algorithm binary keeps 1 / log_base of the candidate tasks.",
    )
    steps: int = knob(
        10,
        at_least=1,
        at_most=MOST_GRADIENTS,
        help="Number of gradients that gradient_descent and frank_wolfe compute per inference.",
    )
    rate: float = knob(0.3, above=0, help="Learning rate of gradient_descent.")
    reservoir: bool = knob(
        False, help="Whether masks are also stored in reservoirs and recalled from them."
    )


@dataclass
class AllocationConfig:
    """Settings of the learner that follows a stream of batches, if scenario=nns."""

    rule: str = knob(
        "margin",
        one_of=ALLOCATION_RULES,
        help="Rule that decides whether a batch needs a new mask. margin compares the slope of a "
        "mask with the slopes of masks of other tasks. paper is the rule of Wortsman et al. 2020, "
        "which needs the recipe paper and the objective H.",
    )
    threshold: float = knob(
        7.0,
        above=0,
        help="For rule=margin: a batch belongs to a known mask if the margin of the mask is at "
        "least this number. The margin is the mean of other slopes minus the slope of the mask, "
        "divided by the standard deviation of the other slopes.",
    )
    epsilon: float = knob(
        2.0**-3,
        above=0,
        help="For rule=paper: a batch belongs to a known mask if the largest probability, times "
        "the number of candidates, is at least 1 + epsilon.",
    )
    floor: int = knob(
        0,
        at_least=0,
        at_most=1000,
        help="For rule=paper: smallest number of candidates. If there are fewer masks, untrained "
        "masks are added. The authors use 5.",
    )
    objective: str = knob(
        "H", one_of=OBJECTIVES, help="Objective whose slopes the rule compares, on a whole batch."
    )
    every: int = knob(
        100,
        at_least=1,
        at_most=MOST_STEPS,
        help="Number of batches from one decision to the next. If train.steps is no multiple of "
        "this number, masks also train on some batches of the next task.",
    )
    budget: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        help="Largest number of masks. When they are used up, batches that need a new mask are "
        "skipped. auto means a tenth more masks than tasks, and at least 4 more.",
    )


@dataclass
class ReservoirConfig:
    """Settings of the reservoirs that store and recall masks if evaluate.reservoir is true."""

    rules: list[str] = knob(
        lambda: ["projection"],
        one_of=tuple(RESERVOIR_RULES),
        filled=True,
        distinct=True,
        help="Rules by which a reservoir stores masks. With projection_8bits and "
        "projection_4bits, each weight of the reservoir has 8 or 4 bits.",
    )
    cues: list[str] = knob(
        lambda: [*CUES],
        one_of=(*CUES, DESCENT),
        filled=True,
        distinct=True,
        help="Starting points of recall. flipped is the mask with some bits inverted. erased is "
        "the mask with some bits unknown. data is a batch of images without labels. descent is the "
        "mean of all stored masks: gradient descent then changes the mask until the outputs for "
        "images without labels are certain and the energy is low, as in HopSupSup.",
    )
    share: float = knob(
        0.1,
        at_least=0,
        at_most=1,
        help="Fraction of the mask's bits that are inverted (cue flipped) or unknown (cue erased).",
    )
    block: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        help="Number of mask bits per reservoir. auto means the whole mask if it has at most 8192 "
        "bits, else 1024.",
    )
    most_steps: int = knob(
        50,
        at_least=1,
        at_most=MOST_SWEEPS,
        help="Largest number of sweeps over all bits in one recall.",
    )
    gradients: int = knob(
        30,
        at_least=1,
        at_most=MOST_GRADIENTS,
        help="Number of gradient steps of the cue descent. Each step uses another test batch. If "
        "the task has fewer batches, the first batch follows the last.",
    )


@dataclass
class ActorsConfig:
    """Settings that divide the work among Ray actors. No result depends on these keys."""

    train: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        at_most=MOST_ACTORS,
        help="Number of training actors. With auto, the number depends on the CPUs or GPUs that "
        "Ray has.",
    )
    evaluate: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        at_most=MOST_ACTORS,
        help="Number of evaluation actors during training. auto means one actor per eight "
        "CPUs (with GPUs, per eight actors), but at least one actor.",
    )
    gpus: float = knob(
        0.25,
        above=0,
        at_most=1,
        help="Fraction of a GPU per actor, if there are GPUs. If the training actors need all "
        "GPUs, the evaluation actors share the GPUs with them, and each actor reserves less.",
    )
    side_by_side: int | str = knob(
        AUTO,
        kind=int,
        instead=AUTO,
        at_least=1,
        at_most=100_000,
        help="Number of blocks that a training actor trains at the same time. auto means 1 on a "
        "CPU. On a GPU, it means as many blocks as are needed to keep the GPU busy.",
    )
    shards: int = knob(
        1,
        at_least=1,
        at_most=MOST_ACTORS,
        help="Number of evaluation actors that the masks are split over. Use a number above 1 if "
        "the masks do not fit into the memory of one actor. It then replaces actors.evaluate, and "
        "only one_shot and one_shot_ranked can be used. 1 means that the masks are not split.",
    )


@dataclass
class Config:
    """The configuration of a run."""

    tasks: int = knob(32, at_least=1, help="Number of tasks.")
    # torch takes seeds of 64 bits.
    seed: int = knob(0, at_least=0, at_most=2**64 - 1, help="Seed of every random draw.")
    data: str = knob(
        "mnist5k",
        one_of=tuple(DATASETS),
        also=(_OWN, _PATHS),
        help="Data set. mnist5k has 5,000 images of MNIST, and needs no download. A path is a file "
        "of arrays, or a folder of images by class.",
    )
    data_options: dict[str, Any] = knob(dict, help="Options of the data set.")
    family: str = knob(
        "permuted",
        one_of=tuple(FAMILIES),
        also=(_OWN,),
        help="Family of tasks: the way in which tasks differ.",
    )
    family_options: dict[str, Any] = knob(dict, help="Options of the family.")
    network: str = knob(
        "lenet_300_100",
        one_of=tuple(NETWORKS),
        also=(_OWN,),
        help="Network with fixed random weights.",
    )
    network_options: dict[str, Any] = knob(
        dict, help="Options of the network, such as network_options.hidden=[300,300] for mlp."
    )
    outputs: int = knob(
        500,
        at_least=1,
        help="Number of outputs of the network. Each class has one output. The other outputs are "
        "superfluous neurons.",
    )
    method: str = knob(
        "threshold",
        one_of=tuple(METHODS),
        also=(_OWN,),
        help="Mask finder: the rule that computes masks from scores.",
    )
    method_options: dict[str, Any] = knob(
        dict, help="Options of the finder, such as method_options.density=0.3 for edge_popup."
    )
    scenario: str = knob(
        "gn",
        one_of=SCENARIOS,
        help="With gn, the task is given in training, and inferred in the evaluation. With nns, "
        "one learner follows a stream of all tasks, and is told the task neither in training nor "
        "in inference.",
    )
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    reservoir: ReservoirConfig = field(default_factory=ReservoirConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    executor: str = knob(
        "ray",
        one_of=EXECUTORS,
        help="ray does the work in many processes, the Ray actors. serial does it in one process. "
        "The results are the same.",
    )
    run_dir: Any = knob(
        None,
        kind=str | None,
        help="Folder of the run, or s3://BUCKET/FOLDER or gs://BUCKET/FOLDER. null means "
        "runs/<name of the run>.",
    )
    data_dir: Any = knob(
        None,
        kind=str | None,
        help="Folder with the files of the data set, or torchvision's root folder. null means the "
        "cache folder.",
    )
    download: bool = knob(
        True, help="Whether missing data files may be downloaded. Their sha256 is checked."
    )
    quiet: bool = knob(False, help="Whether the screen shows log lines instead of progress bars.")
    loggers: list[str] = knob(
        list,
        one_of=tuple(LOGGERS),
        distinct=True,
        example=["tensorboard"],
        help="Programs that get a copy of the accuracies while the run works: TensorBoard, MLflow "
        "and Weights & Biases.",
    )


AnyConfig = TypeVar("AnyConfig", bound=Config)


def is_streamed(config: Config) -> bool:
    """Return whether a learner follows a stream of tasks without being told the task."""
    return config.scenario == "nns"
