"""What the snapshots of a run show: how its masks, its representations and its gradients changed over training.

Every function takes the folder of a record that kept snapshots (`training.snapshots`) and returns a tidy frame with
the columns epoch, layer (qualified name), number (see `snapshots.numbers`) and its values.
"""

from spfde.analysis.cka import representations
from spfde.analysis.gradients import gradients
from spfde.analysis.similarity import structure

__all__ = ["gradients", "representations", "structure"]
