"""Masks over one's own torch.nn.Module, one mask per task, learnt from one's own batches.

    from supsup_core import Supermasks

    masks = Supermasks(module, input_shape=(1, 28, 28))
    masks.learn(loader_of_task_0, steps=500)
    masks.learn(loader_of_task_1, steps=500)
    task = masks.infer(images)  # to which task do these images belong?
    logits = masks.model(int(task))(images)

Everything stays in memory. For thousands of tasks, actors and a store on disk, use the commands.

Shape letters: Q queries, K images of a query, N images of a batch, T tasks, S outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from supsup_core import names
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.engines.protocol import Engine
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import Method, Shared, WeightsOfTask, layout_of
from supsup_core.methods.trained_weights import trained_before
from supsup_core.names import FORWARD_ALGORITHMS, METHODS
from supsup_core.networks.masked import MaskedModel
from supsup_core.networks.module import as_network
from supsup_core.networks.protocol import Network
from supsup_core.states.protocol import PackedStates
from supsup_core.training.descent import Descent
from supsup_core.training.recipe import Recipe
from supsup_core.training.transfer import ROWS, Transfer, source_tasks


class Supermasks:
    """The masks of the tasks that one fixed network has learnt so far.

    Args:
        module: a module that maps inputs (N, *input_shape) to logits (N, S), or a network of
            supsup_core. The module itself stays unchanged; its Linear and Conv weights are replaced
            by signed constants. A masked layer must have no bias.
        input_shape: the shape of one input.
        method: the mask finder: a name of names.METHODS, or a Method object with its options.
        seed: the number from which the fixed weights and the first scores are drawn.
        num_real: the number of outputs that belong to a class; None: all outputs. The objective G
            needs other outputs too.
        device: the device of all computations.

    Attributes:
        network: the fixed network.

    Raises:
        ValueError: the network or the finder is not possible.
    """

    def __init__(
        self,
        module: nn.Module | Network,
        input_shape: Sequence[int],
        method: str | Method = "edge_popup",
        *,
        seed: int = 0,
        num_real: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = as_network(type(module).__name__, module, input_shape)
        self._method: Method = (
            names.load("method", METHODS, method)() if isinstance(method, str) else method
        )
        if self._method.searches:
            raise ValueError(
                f"method must train scores, got {type(self._method).__name__}, which only draws "
                "candidates: try edge_popup"
            )
        self._layout = layout_of(self.network, self._method)
        self._seed, self._device = seed, torch.device(device)
        self._num_real = self.network.num_outputs if num_real is None else num_real
        self._weights = {n: w.to(self._device) for n, w in self.network.weights(seed).items()}
        # Whether tasks train weights.
        self._trains = bool(self._method.shared_shapes(self.network).keys() & self._weights.keys())
        self._rows = np.zeros((0, self._layout.row_bytes), np.uint8)
        self._carried: Shared = {}
        self._engine: Engine | None = None

    def __len__(self) -> int:
        """T, the number of learnt tasks."""
        return len(self._rows)

    def learn(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        steps: int = 500,
        learning_rate: float = 3e-3,
        recipe: Recipe | None = None,
        progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    ) -> int:
        """Find a mask for the next task.

        Args:
            batches: pairs of normalised images (N, *input_shape) and labels (N,), such as a
                DataLoader. It is read again from the start when it ends.
            steps: number of steps of the optimiser.
            learning_rate: the largest learning rate of Adam, which falls like half a period of a
                cosine.
            recipe: other settings of the training. `steps` and `learning_rate` are then not used.
            progress: a function that passes on the numbers of the steps, and shows the progress,
                such as `tqdm.auto.tqdm` or `rich.progress.track`. By default, nothing is shown.

        Returns:
            The number of the task.

        Raises:
            ValueError: `batches` has no batch.
        """
        recipe = recipe or _adam(steps, learning_rate)
        task_id, stream = len(self), self._stream(batches)
        first = next(stream)
        transfer = Transfer(self.network, self._method, recipe, self._seed, self._device)
        sources = source_tasks(recipe.transfer, [task_id], self._seed)
        shared = {**self._carried, **({ROWS: self._rows[sources]} if sources else {})}
        (start,) = transfer.starts(
            [task_id], shared or None, lambda *_: tuple(one[None].cpu() for one in first)
        )
        descent = Descent(
            self.network,
            self._method,
            recipe,
            self._weights,
            [start],
            shared or None,
            task_ids=[task_id],
            seed=self._seed,
        )
        steps_shown = progress(range(recipe.steps))
        for step, (images, labels) in zip(steps_shown, chain([first], stream), strict=False):
            descent.step(step, images[None], labels[None])
        self._rows = np.concatenate([self._rows, self._layout.pack(descent.states())])
        self._carried = {**self._carried, **transfer.pass_on([task_id], descent.scores, shared)}
        self._engine = None
        return task_id

    def _stream(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches on the device, again and again."""
        while True:
            images = None
            for images, labels in batches:
                yield images.to(self._device, torch.float32), labels.to(self._device, torch.int64)
            if images is None:
                raise ValueError("batches must have a batch, got none: pass a list or a DataLoader")

    def gains(self, task: int) -> dict[str, Tensor]:
        """Return the gains of a task: a mapping from the name of a masked tensor to its gains."""
        return self._states().gains(task)

    def mask(self, task: int) -> dict[str, Tensor]:
        """Return the mask of a task: True for each weight that is kept, by name of the tensor."""
        return {name: gain != 0 for name, gain in self.gains(task).items()}

    def model(self, task: int) -> MaskedModel:
        """Return a module with the mask of a task, in evaluation mode."""
        states = self._states()
        trained = trained_before(self._carried, self._weights)
        weights = {**self._weights, **self._weights_of_task(task)(trained)}
        return MaskedModel(self.network, weights, states.gains(task), states.floats(task)).eval()

    def superposition(self, alphas: Float[Tensor, " T"] | None = None) -> MaskedModel:
        """Return a module with the weighted sum of the gains of all tasks.

        Args:
            alphas: (T,) the coefficients of the tasks; None: 1 / T each.
        """
        count = len(self)
        equal = torch.full((count,), 1 / max(count, 1), device=self._device)
        gains = self._states().combine((equal if alphas is None else alphas)[None])
        one = {name: gain[0] for name, gain in gains.items()}
        return MaskedModel(self.network, self._now(), one, {}).eval()

    def infer(
        self,
        images: Float[Tensor, "..."],
        algorithm: str = "one_shot",
        objective: str = "H",
        options: Options | None = None,
    ) -> Int64[Tensor, " Q"]:
        """Infer to which learnt task images belong.

        Args:
            images: (K, *input_shape) normalised images of one task, or (Q, K, *input_shape) the
                images of Q queries.
            algorithm: an inference algorithm, one of names.INFERENCE_ALGORITHMS.
            objective: "H" or "G", for algorithms that use gradients.
            options: options of the algorithms.

        Returns:
            (Q,) the inferred task of each query, on the CPU.

        Raises:
            ValueError: no task is learnt yet, or the engine does not have the algorithm.
        """
        if self._engine is None:
            self._engine = engine_for(
                *(self.network, self._now(), self._states(), self._num_real), trained=self._trains
            )
        if algorithm not in self._engine.supports:
            known = ", ".join(sorted(self._engine.supports))
            raise ValueError(f"algorithm must be one of {known}, got {algorithm!r}")
        single = images.ndim == len(self.network.input_shape) + 1
        queries = (images[None] if single else images).to(self._device, torch.float32)
        needed = None if algorithm in FORWARD_ALGORITHMS else OBJECTIVES[objective]
        found = [
            self._engine.infer(some, algorithm, needed, options or Options()).tasks
            for some in queries.split(self._engine.queries_together(queries.shape[1]))
        ]
        return torch.cat(found)

    def _states(self) -> PackedStates:
        if not len(self):
            raise ValueError("a task must be learnt first, got none: call learn")
        return states_for(
            *(self.network, self._layout, self._rows, self._device), trained=self._trains
        )

    def _now(self) -> dict[str, Tensor]:
        """Return the weights after the last task: the fixed ones, or those that tasks train."""
        return self._weights | trained_before(self._carried, self._weights)

    def _weights_of_task(self, task_id: int) -> WeightsOfTask:
        return self._method.weights_of_task(self.network, task_id, self._seed)


def _adam(steps: int, learning_rate: float) -> Recipe:
    """Make a recipe that suits most finders and networks. The batches have their own sizes."""
    return Recipe(
        steps=steps,
        batch_size=1,
        learning_rate=learning_rate,
        smoothing=0.999,
        decay="cosine",
        optimizer="adam",
        momentum=0.9,
    )
