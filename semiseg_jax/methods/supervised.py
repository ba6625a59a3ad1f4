"""Training on the labelled images alone (ReCo, `train_sup.py` and `train_sup_partial.py`)."""

import dataclasses

import jax

from semiseg_jax import contract
from semiseg_jax.augment.views import image_keys, labeled_view
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.losses.labeled import labeled_losses, make_loss


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """A loss over the labelled pixels of augmented crops.

  supervised_loss: a name of losses/labeled.py, with or without fields: "focal(gamma=2.0)".
  aux_weight: of the same loss of a network's second classifier, where it has one (PSPNet's 0.4).
  """

  supervised_loss: str = "ce"
  aux_weight: float = 0.4

  def __post_init__(self):
    make_loss(self.supervised_loss)  # says what is wrong with it

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    return {"labeled": labeled_view(batch, key)}

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    view, network = views["labeled"], state.forward["student"]
    batch_stats, keys = state.networks["student"].batch_stats, image_keys(key, view["rank"], 6)
    outputs, batch_stats = network(params["student"], batch_stats, view["image"], True, keys)
    logits, when = (
      network.resized(outputs, view["label"].shape[1:]),
      (state.step, state.facts.steps),
    )
    loss = make_loss(self.supervised_loss)
    losses = labeled_losses(loss, logits, view["label"], *when, self.aux_weight, DATA_AXIS)
    return sum(losses.values()), Aux(losses, {"student": batch_stats})
