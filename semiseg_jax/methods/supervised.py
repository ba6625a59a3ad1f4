"""Training on the labelled images alone (ReCo, `train_sup.py` and `train_sup_partial.py`;
pytorch-segmentation and its fork, `trainer.py`)."""

import dataclasses

import jax

from semiseg_jax import contract
from semiseg_jax.augment.views import image_keys, labeled_view
from semiseg_jax.collectives import DATA_AXIS, pmean
from semiseg_jax.contract import Aux, Batch, Loss, Params, TrainState, Tree
from semiseg_jax.losses.labeled import labeled_losses, make_loss
from semiseg_jax.values import NotNegative


@dataclasses.dataclass(frozen=True)
class Method(contract.Method):
  """A loss over the labelled pixels of augmented crops.

  supervised_loss: a name of losses/labeled.py, with or without fields: "focal(gamma=2.0)".
  aux_weight: of the same loss of a network's second classifier, where it has one (PSPNet's 0.4).
  augment: colour jitter, blur and flip on the device (ReCo's); else images are learnt from as the
  input made them. second_pass: the network sees each batch again behind its update, which moves
  the batch statistics once more and nothing else (pytorch-segmentation's fork takes its training
  scores there).
  """

  supervised_loss: str = "ce"
  aux_weight: NotNegative = 0.4
  augment: bool = True
  second_pass: bool = False

  def __post_init__(self):
    make_loss(self.supervised_loss)  # says what is wrong with it

  def targets(self, state: TrainState, batch: Batch, key: jax.Array) -> Tree:
    return {"labeled": labeled_view(batch, key, self.augment)}

  def loss(self, params: Params, state: TrainState, views: Tree, key: jax.Array) -> Loss:
    view, network = views["labeled"], state.forward["student"]
    batch_stats, keys = state.networks["student"].batch_stats, image_keys(key, view["rank"], 6)
    outputs, batch_stats = network(params["student"], batch_stats, view["image"], True, keys)
    loss, logits = (
      make_loss(self.supervised_loss),
      network.resized(outputs, view["label"].shape[1:]),
    )
    when = state.step, state.facts.steps
    losses = labeled_losses(loss, logits, view["label"], *when, self.aux_weight, DATA_AXIS)
    again = {"image": view["image"], "rank": view["rank"]} if self.second_pass else None
    return sum(losses.values()), Aux(losses, {"student": batch_stats}, extra=again)

  def after(self, state: TrainState, aux: Aux) -> TrainState:
    """The statistics of the second pass; what it drops is drawn anew."""
    if not self.second_pass:
      return state
    key = jax.random.fold_in(state.rng, state.step)
    keys = image_keys(key, aux.extra["rank"], 7)
    _, batch_stats = state.run("student", aux.extra["image"], train=True, keys=keys)
    return state.with_arrays(batch_stats={"student": pmean(batch_stats, DATA_AXIS)})
