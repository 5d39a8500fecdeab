"""SNIP: before training, prune the weights to which the loss is least sensitive."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from spfde.cost.profile import LayerProfile
from spfde.methods.base import Options, register, scoring_macs
from spfde.methods.ranked import Scored, gradient
from spfde.methods.run import Run


class SnipOptions(Options):
    samples: int = Field(100, ge=1, description="random training samples that are scored, in one batch")
    batch_norm: Literal["training", "evaluation"] = Field(
        "training", description="mode of the network, and so of BatchNorm, while it is scored"
    )


@register
class Snip(Scored):
    """Keeps the weights with the largest |g w| of the dense network at initialisation: Lee et al. 2019, Eq. 6.

    Ranked over all sparse layers together; which layers these are is the setting `sparsity.dense_layers`.
    """

    name = "snip"
    title = "SNIP"
    paper = "Lee et al., ICLR"
    year = 2019
    Options: ClassVar[type[Options]] = SnipOptions

    def scores(self, run: Run, network: nn.Module, weights: list[Tensor]) -> list[Tensor]:
        images, labels = run.fetch(self.shuffled(run)[: self.options.samples])
        network.train(self.options.batch_norm == "training")
        gradients = gradient(F.cross_entropy(network(images), labels), weights)
        return [(weight.detach() * grad).abs() for weight, grad in zip(weights, gradients, strict=True)]

    def extra_macs(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> np.ndarray:
        """One pass forward and backward through the dense network, before epoch 0."""
        return scoring_macs(layers, self.scored_samples(epoch, layers, samples))

    def scored_samples(self, epoch: int, layers: Sequence[LayerProfile], samples: int) -> int:
        return min(self.options.samples, samples) if epoch == 0 else 0
