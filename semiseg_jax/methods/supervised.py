"""Training on the labelled images alone (ReCo, `train_sup.py` and `train_sup_partial.py`)."""

import dataclasses

import jax

from semiseg_jax import contract
from semiseg_jax.augment.views import labeled_view
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.losses.pixel import supervised_loss


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """Cross-entropy over the labelled pixels of augmented crops; no hyper-parameters of its own."""

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    return {"labeled": labeled_view(batch, key)}

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    view, network = views["labeled"], state.forward["student"]
    batch_stats = state.networks["student"].batch_stats
    outputs, batch_stats = network(params["student"], batch_stats, view["image"], train=True)
    logits = network.resize(outputs.logits, view["label"].shape[1:])
    loss = supervised_loss(logits, view["label"], DATA_AXIS)
    return loss, Aux({"supervised_loss": loss}, {"student": batch_stats})
