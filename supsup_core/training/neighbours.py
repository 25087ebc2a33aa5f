"""Choose the earlier state whose features separate the classes of a new task best.

The features of an image are the inputs of the network's last masked layer. Some images of the new
task are the references. The label of each other image is the label that most of its nearest
references have (k nearest neighbours, Euclidean distance). A state is as good as the fraction of
labels that are right.

Source: the KNN-based knowledge transfer (KKT) of Yadav & Bansal (ExSSNeT). They use the first 20 %
of the training batches, 66 % of their images as references, and 200 neighbours. Here, the number
of neighbours is also at most the mean number of references per class: otherwise, a small data set
would always give the label of the largest class.

Shape letters: N images, F features, R references, Q other images, k neighbours.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.protocol import States

SHARE = 0.2  # of the training images of the new task
MOST_IMAGES = 5000  # of the new task; with more images, a task takes long after many tasks
REFERENCE_SHARE = 0.66
MOST_NEIGHBOURS = 200
FEWEST_IMAGES = 2  # one reference, and one other image
_IMAGES_AT_ONCE = 1000  # in one forward pass, so that activations need little memory


def accuracy_of_neighbours(features: Float[Tensor, "N F"], labels: Integer[Tensor, " N"]) -> float:
    """Return the fraction of images whose nearest references have the right label.

    Args:
        features: (N, F) the features of the images. The first images are the references.
        labels: (N,) the labels of the images, from 0.
    """
    num_references = min(len(labels) - 1, max(1, round(REFERENCE_SHARE * len(labels))))
    per_class = num_references // max(1, len(labels.unique()))
    num_neighbours = max(1, min(MOST_NEIGHBOURS, per_class))
    references, others = features[:num_references], features[num_references:]
    nearest = torch.cdist(others, references).topk(num_neighbours, largest=False).indices
    found = labels[:num_references][nearest]  # (Q, k)
    votes = found.new_zeros(len(others), int(labels.max()) + 1)
    votes.scatter_add_(1, found, torch.ones_like(found))
    return float((votes.argmax(dim=1) == labels[num_references:]).double().mean())


def best_by_neighbours(
    network: Network,
    weights: Weights,
    states: States,
    images: Float[Tensor, "N ..."],
    labels: Integer[Tensor, " N"],
) -> int | None:
    """Choose the state whose features separate the classes of some images best.

    Args:
        network: the network.
        weights: a mapping from tensor name to weights.
        states: the earlier states, at least one.
        images: (N, *shape) normalised images of the new task.
        labels: (N,) their labels, from 0.

    Returns:
        The index of the state; of equally good states, the first one. None if no state is better
        than chance, or if there are too few images.
    """
    if len(images) < FEWEST_IMAGES:
        return None
    accuracies = []
    for task in range(len(states)):
        gains, floats = states.gains(task), states.floats(task) or None
        with torch.no_grad():
            parts = [
                network.features(weights, gains, some, floats)
                for some in images.split(_IMAGES_AT_ONCE)
            ]
        accuracies.append(accuracy_of_neighbours(torch.cat(parts), labels))
    best = max(range(len(accuracies)), key=accuracies.__getitem__)
    chance = 1 / len(labels.unique())
    return best if accuracies[best] > chance else None
