"""The memory layout of images while a network trains and is evaluated.

Convolutions run fastest, on CPUs and on a GPU's tensor cores, when the channels of a position are side by side in
memory (channels last). In fp32 a GPU has no use for its tensor cores, and cuDNN turns the images round for most of its
kernels and back, so there they keep torch's default layout. The layout of the input decides, because every convolution
gives its output the layout of its input. On a GPU the weights get it too, otherwise each convolution would convert its
weights in every step. On a CPU that makes no difference, so the weights stay as they are.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn


def memory_format(
    model: nn.Module, input_shape: Sequence[int], device: str = "cpu", precision: str = "fp32"
) -> torch.memory_format:
    """The layout for a network's images: channels last where that is faster and the network runs on such images.

    A network that reshapes its activations by `view` does not run on them; it is tried with one black image, on a copy.

    Args:
        model: the network, on the CPU; it is left as it is.
        input_shape: shape of one image, (channels, height, width).
        device: type of the device that it is going to run on.
        precision: arithmetic, as the setting of that name.
    """
    if device == "cuda" and precision == "fp32":
        return torch.contiguous_format
    if len(input_shape) != 3 or not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return torch.contiguous_format
    image = torch.zeros(1, *input_shape).to(memory_format=torch.channels_last)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(model).eval()(image)
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last
