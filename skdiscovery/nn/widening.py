"""A larger model that begins as good as a smaller one: Net2Net (Chen et al. 2016)."""

from collections.abc import Mapping

import numpy as np

from skdiscovery.nn.model import Architecture
from skdiscovery.nn.weights import Weights, weight_shapes


def widen_weights(
    weights: Mapping[str, np.ndarray],
    architecture: Architecture,
    hidden_size: int,
    random_state: np.random.RandomState,
) -> Weights:
    """Return the weights of a model with more neurons that computes the same function.

    Each new neuron is the copy of an old one (Net2WiderNet, Chen, Goodfellow & Shlens 2016,
    arXiv:1511.05641, section 2.3). What reads a neuron reads its copies in random shares that sum
    to one, not in equal ones as there: so copies get different gradients, and part.

    Parameters
    ----------
    weights : mapping of str to ndarray
        The weights of the smaller model; they are not changed.
    architecture : Architecture
        Of the smaller model.
    hidden_size : int
        Number of neurons of each layer of the larger model.
    random_state : RandomState
        Draws the shares.

    Returns
    -------
    dict of ndarray, dtype float32

    Raises
    ------
    ValueError
        If the larger model would be the smaller.
    """
    old_size = architecture.hidden_size
    if hidden_size < old_size:
        raise ValueError(
            f"A model can be widened, not narrowed: it has {old_size} neurons, and "
            f"hidden_size={hidden_size} is asked for."
        )
    copied = np.arange(hidden_size) % old_size

    def copy_rows(array: np.ndarray) -> np.ndarray:
        """Repeat what is computed: one row per neuron, or four blocks of them for the gates."""
        blocks = array.reshape(-1, old_size, *array.shape[1:])[:, copied]
        return blocks.reshape(-1, *array.shape[1:])

    def share_columns(matrix: np.ndarray) -> np.ndarray:
        """Divide what is read among the copies."""
        shares = random_state.uniform(size=(len(matrix), hidden_size))
        totals = np.zeros((old_size, len(matrix)))
        np.add.at(totals, copied, shares.T)
        return matrix[:, copied] * shares / totals.T[:, copied]

    widened = {}
    for name in weight_shapes(architecture):
        array = weights[name]
        if name.startswith("layers."):
            array = copy_rows(array)
        if array.ndim == 2 and reads_neurons(name):
            array = share_columns(array)
        widened[name] = array.astype(np.float32)
    return widened


def reads_neurons(name: str) -> bool:
    """Return whether the columns of a matrix are neurons: all but what reads the embedding."""
    return name not in ("embedding", "layers.0.wx", "layers.0.wmx")
