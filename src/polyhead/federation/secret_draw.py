"""Of what the noise of a site's round is drawn: of its secret, and of everything that its answer depends on.

So the same question gets the same bytes, however often it is asked, and tells nothing new. Whatever differs in the
question, in the site's own state or in its images gives other noise: two answers of the same noise and other data
would, taken from each other, be an answer without noise.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from polyhead.training.dataset import SplitData
from polyhead.training.tensor_file import memory_of

__all__ = ["data_hash", "draw_key", "public_secret"]


def draw_key(secret: bytes, about: Sequence[object], states: Mapping[str, Mapping[str, torch.Tensor]]) -> bytes:
    """Return 32 bytes, from which all chance of a site's round is drawn.

    Parameters
    ----------
    secret
        The site's.
    about
        What the answer depends on beside tensors; its `repr` must say all of it.
    states
        Tensors that it depends on, by name, in parts; how they lie in memory changes nothing.

    Raises
    ------
    ValueError
        If there is no secret.
    """
    if not secret:
        raise ValueError("a round with noise needs the site's secret")
    digest = hashlib.sha256(repr(tuple(about)).encode())
    for part, state in sorted(states.items()):
        for name, tensor in sorted(state.items()):
            plain = tensor.detach().cpu()
            # What travelled in half precision is the same values when it is widened.
            plain = plain.float() if plain.dtype in (torch.float16, torch.bfloat16) else plain
            digest.update(repr((part, name, str(plain.dtype), tuple(plain.shape))).encode())
            digest.update(memory_of(plain))
    return hmac.digest(secret, digest.digest(), "sha256")


def data_hash(data: SplitData) -> str:
    """Return a hash of a split's images, labels and patients, in their order."""
    digest = hashlib.sha256(repr((data.images, data.patients, data.labels.shape, data.pixels.shape[1:])).encode())
    digest.update(data.labels.tobytes())
    for index in range(len(data)):
        digest.update(data.read(np.array([index])).tobytes())
    return digest.hexdigest()


def public_secret(seed: int, site: str) -> bytes:
    """Return what stands for a site's secret in a simulation, where whoever has the study has the data, too."""
    return hashlib.sha256(repr(("simulated secret", seed, site)).encode()).digest()
