"""Choose the trainer for a network and a finder: a fast trainer if possible, otherwise autograd."""

import torch

from supsup_core.data import ImageSet
from supsup_core.methods.planes import PlaneMethod
from supsup_core.methods.protocol import Method, layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.names import MEAN_SCORES, NO_CHANGE, NO_TRANSFER
from supsup_core.networks.mlp import MLP
from supsup_core.networks.module import ModuleNetwork
from supsup_core.networks.protocol import Network
from supsup_core.networks.units import UnitMLP, WholePixels
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.measure import IntegerMeasure, Measure, PlainMeasure, measure_for
from supsup_core.training.modules import ModuleTrainer
from supsup_core.training.protocol import Trainer
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.resident_autograd import ResidentAutogradTrainer
from supsup_core.training.resident_measure import ResidentMeasure
from supsup_core.training.resident_units import ResidentUnitTrainer
from supsup_core.training.search import SearchTrainer
from supsup_core.training.units import UnitTrainer


def trains_on_blocks(network: Network, method: Method, recipe: Recipe) -> bool:
    """Return whether MLPTrainer supports a network, a finder and a recipe.

    The network must be an MLP whose weights are signed constants, and the recipe must not change
    images at random. The methods `choose`, `slope` and `decay` must be the whole rule of the finder
    (Method.only_planes).
    """
    return _trains_with_signs(network, recipe) and trains_by_planes(method, recipe)


def trains_on_scaled_blocks(network: Network, method: Method, recipe: Recipe) -> bool:
    """Return whether MLPTrainer supports a finder whose kept weights have a scale per tensor.

    The conditions for the network and the recipe are those of trains_on_blocks. On a GPU,
    ResidentAutogradTrainer trains such a finder.
    """
    return (
        _trains_with_signs(network, recipe)
        and recipe.transfer != MEAN_SCORES
        and isinstance(method, PlaneMethod)
        and all(method.scaling(tensor) is not None for tensor in network.tensors)
    )


def _trains_with_signs(network: Network, recipe: Recipe) -> bool:
    """Return whether MLPTrainer supports a network and a recipe."""
    return type(network) is MLP and network.has_constants and recipe.augment == NO_CHANGE


def trains_on_modules(network: Network, method: Method, recipe: Recipe) -> bool:
    """Return whether ModuleTrainer supports a network, a finder and a recipe.

    The network must be a ModuleNetwork whose masked weights are signed constants. The conditions
    for the finder are those of trains_on_blocks.
    """
    return (
        isinstance(network, ModuleNetwork)
        and network.has_constants
        and trains_by_planes(method, recipe)
    )


def trains_by_planes(method: Method, recipe: Recipe) -> bool:
    """Return whether the trainers that keep no scores support a finder and a recipe.

    The methods `choose`, `slope` and `decay` must be the whole rule of the finder, and no later
    task may need the scores.
    """
    return method.only_planes and recipe.transfer != MEAN_SCORES


def trains_on_units(network: Network, method: Method, recipe: Recipe, num_channels: int) -> bool:
    """Return whether UnitTrainer supports a network, a finder, a recipe and images.

    The network must be a UnitMLP, and the finder the threshold rule, without transfer. The images
    must have one channel, and the recipe must not change them at random.
    """
    unchanged = recipe.augment == NO_CHANGE and recipe.transfer == NO_TRANSFER
    is_threshold = type(network) is UnitMLP and type(method) is Threshold
    return is_threshold and unchanged and num_channels == 1


def trains_side_by_side(network: Network, method: Method, recipe: Recipe) -> bool:
    """Return whether ResidentAutogradTrainer supports a network, a finder and a recipe.

    All steps must be equal (Method.has_equal_steps), and no task may need data from the training of
    an earlier task.
    """
    trains_alone = method.order == "any" and not method.shared_shapes(network)
    return (
        trains_alone
        and method.has_equal_steps
        and not method.searches
        and recipe.transfer != MEAN_SCORES
    )


def reads_whole_arrays(network: Network, num_channels: int) -> bool:
    """Return whether trainers of a network need all images in memory.

    If they do, images that are read from files are refused, and not trained in a slower way:
    otherwise the masks would depend on the memory of the machine.
    """
    return type(network) in (MLP, UnitMLP) and num_channels == 1


def trainer_for(
    network: Network,
    method: Method,
    train: ImageSet,
    test: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Trainer:
    """Make the trainer of a run's tasks.

    Args:
        network: the fixed network.
        method: the mask finder.
        train: the training images.
        test: the test images, on which states are measured.
        recipe: the settings of the training.
        seed: the run's seed.
        dtype: dtype of the matrix products: float32, bfloat16 or float64.
        device: device of all computations; None means the CPU.

    Raises:
        ValueError: the images are not in memory, and the network needs them there.
    """
    if reads_whole_arrays(network, train.channels):
        for images in (train, test):
            _ = images.flat  # raises the error
    device = device or torch.device("cpu")
    on_gpu = device.type != "cpu"
    if trains_on_units(network, method, recipe, train.channels):
        assert isinstance(network, UnitMLP)
        of_units = ResidentUnitTrainer if on_gpu else UnitTrainer
        pixels = WholePixels(network, seed, train.std[0], device)
        return of_units(pixels, train, test, recipe, seed=seed)
    layout = layout_of(network, method)
    measure: Measure
    if method.shared_shapes(network):  # the other functions measure with the fixed weights only
        measure = PlainMeasure(network, layout, test, seed, device)
    elif on_gpu and type(network) is MLP and IntegerMeasure.fits(network, layout, test):
        measure = ResidentMeasure(network, layout, test, seed, device)
    else:
        measure = measure_for(network, layout, test, seed, device)
    given = network, method, recipe
    on_blocks = trains_on_blocks(*given) or (not on_gpu and trains_on_scaled_blocks(*given))
    if on_blocks and train.channels == 1:
        assert isinstance(network, MLP)
        assert isinstance(method, PlaneMethod)
        kind = ResidentTrainer if on_gpu else MLPTrainer
        return kind(network, method, train, measure, recipe, seed=seed, dtype=dtype, device=device)
    slower: type[AutogradTrainer] = SearchTrainer if method.searches else AutogradTrainer
    if on_gpu and trains_side_by_side(network, method, recipe):
        slower = ResidentAutogradTrainer
    elif trains_on_modules(network, method, recipe) and not on_gpu:
        slower = ModuleTrainer
    return slower(network, method, train, measure, recipe, seed=seed, dtype=dtype, device=device)
