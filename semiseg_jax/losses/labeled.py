"""Losses of labelled pixels by name, each a frozen dataclass of its hyper-parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from semiseg_jax import fields
from semiseg_jax.losses import binary, hard_pixels, pixel, region
from semiseg_jax.values import CountFrom0, NotNegative, Share


@dataclasses.dataclass(frozen=True)
class Loss:
  """What every loss has: the function of logits and labels that takes its fields by their names."""

  function: ClassVar[Callable]

  def __call__(
    self,
    logits: jax.Array,
    labels: jax.Array,
    step: jax.Array | int,
    steps: int,
    axis_name: str | None = None,
  ) -> jax.Array:
    """The loss over the global batch at a step, counted from 0, of a run of `steps`.

    logits: [B,H,W,C]; labels: [B,H,W] int32. Raises ValueError unless there are as many class
    weights as classes, or none.
    """
    settings = self.settings(logits.shape[-1], step, steps)
    return self.function(logits, labels, **settings, axis_name=axis_name)

  def settings(self, num_classes: int, step: jax.Array | int, steps: int) -> dict[str, Any]:
    """What the function is called with: the fields, where they don't change with the step."""
    values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    if "class_weights" in values:
      values["class_weights"] = _class_weights(values["class_weights"], num_classes)
    return values


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Loss):
  """The mean over labelled pixels, each counting as much as its class weighs."""

  class_weights: tuple[NotNegative, ...] = ()

  @staticmethod
  def function(logits, labels, class_weights, axis_name):
    if class_weights is None:
      return pixel.supervised_loss(logits, labels, axis_name)
    return pixel.class_weighted_loss(logits, labels, class_weights, axis_name)


@dataclasses.dataclass(frozen=True)
class MaskedCrossEntropy(Loss):
  """The same divided by the number of labelled pixels; 0 without one (C3-SemiSeg's)."""

  class_weights: tuple[NotNegative, ...] = ()
  function = staticmethod(pixel.masked_cross_entropy)


@dataclasses.dataclass(frozen=True)
class Ohem(Loss):
  """See `ohem_loss`; the original's class weights are `hard_pixels.CITYSCAPES_WEIGHTS`."""

  threshold: Share = 0.6
  min_kept: CountFrom0 = 256
  class_weights: tuple[NotNegative, ...] = ()
  function = staticmethod(hard_pixels.ohem_loss)


@dataclasses.dataclass(frozen=True)
class Annealed(Loss):
  """See `annealed_loss`; its threshold is fixed or, None, rises over a share of the run."""

  threshold: Share | None = None
  ramp_share: Share = 0.4
  min_kept: CountFrom0 = 1
  class_weights: tuple[NotNegative, ...] = ()
  function = staticmethod(hard_pixels.annealed_loss)

  def settings(self, num_classes: int, step: jax.Array | int, steps: int) -> dict[str, Any]:
    values = super().settings(num_classes, step, steps)
    ramp_steps = values.pop("ramp_share") * steps
    if self.threshold is None:
      values["threshold"] = hard_pixels.rising_threshold(step, ramp_steps, num_classes)
    return values


@dataclasses.dataclass(frozen=True)
class Focal(Loss):
  """See `focal_loss`; the defaults are C3-SemiSeg's."""

  gamma: NotNegative = 0.5
  class_weights: tuple[NotNegative, ...] = ()
  mean: Literal[*hard_pixels.FOCAL_MEANS] = "broadcast"
  function = staticmethod(hard_pixels.focal_loss)


@dataclasses.dataclass(frozen=True)
class ZooFocal(Focal):
  """pytorch-segmentation's, whose mean is over all pixels, ignored ones too."""

  gamma: NotNegative = 2.0
  mean: Literal[*hard_pixels.FOCAL_MEANS] = "all"


@dataclasses.dataclass(frozen=True)
class Dice(Loss):
  """See `dice_loss`."""

  smooth: NotNegative = 1.0
  ignored_as_smallest: bool = True
  function = staticmethod(region.dice_loss)


@dataclasses.dataclass(frozen=True)
class CrossEntropyDice(Dice):
  """The mean cross-entropy over labelled pixels plus `dice_loss`; NaN without a labelled pixel."""

  @staticmethod
  def function(logits, labels, axis_name, **settings):
    dice = region.dice_loss(logits, labels, **settings, axis_name=axis_name)
    return pixel.supervised_loss(logits, labels, axis_name) + dice


@dataclasses.dataclass(frozen=True)
class LogCoshDice(Dice):
  """log cosh of `dice_loss`."""

  @staticmethod
  def function(logits, labels, **settings):
    return jnp.log(jnp.cosh(region.dice_loss(logits, labels, **settings)))


@dataclasses.dataclass(frozen=True)
class LovaszSoftmax(Loss):
  """`lovasz_softmax_loss` of the softmax, over the classes "present" or "all"."""

  classes: Literal["present", "all"] = "present"
  per_image: bool = False

  @staticmethod
  def function(logits, labels, **settings):
    probs = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    return region.lovasz_softmax_loss(probs, labels, **settings)


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
  """See `binary_cross_entropy`."""

  ignored_as_negative: bool = True
  function = staticmethod(binary.binary_cross_entropy)


@dataclasses.dataclass(frozen=True)
class BinaryFocal(Loss):
  """See `binary_focal_loss`."""

  gamma: NotNegative = 2.0
  of_mean: bool = True
  ignored_as_negative: bool = True
  function = staticmethod(binary.binary_focal_loss)


@dataclasses.dataclass(frozen=True)
class BinaryDice(Loss):
  """See `binary_dice_loss`."""

  smooth: NotNegative = 1.0
  ignored_as_negative: bool = True
  function = staticmethod(binary.binary_dice_loss)


LOSSES = {
  "abce": Annealed,
  "bce": BinaryCrossEntropy,
  "bce_dice": BinaryDice,
  "bce_focal": BinaryFocal,
  "ce": CrossEntropy,
  "ce_dice": CrossEntropyDice,
  "dice": Dice,
  "focal": Focal,
  "log_cosh_dice": LogCoshDice,
  "lovasz_softmax": LovaszSoftmax,
  "masked_ce": MaskedCrossEntropy,
  "ohem": Ohem,
  "zoo_focal": ZooFocal,
}


def make_loss(text: str) -> Loss:
  """The loss that config.method.supervised_loss names, such as "ce" or "focal(gamma=2.0)".

  Raises ValueError for what is no such name with or without fields in brackets, and as
  `fields.make` does.
  """
  key = "config.method.supervised_loss"
  try:
    name, values = fields.read_call(text)
  except ValueError:
    raise ValueError(
      f"{key}={text!r} should be a name, or one with fields: focal(gamma=2.0)"
    ) from None
  return fields.make(fields.choose(key, name, LOSSES), f"{key} {name}", name, values)


def labeled_losses(
  loss: Loss,
  logits: tuple[jax.Array, jax.Array | None],
  labels: jax.Array,
  step: jax.Array | int,
  steps: int,
  aux_weight: float,
  axis_name: str | None = None,
) -> dict[str, jax.Array]:
  """{"supervised_loss"} of the classifier and, if there is a second one, {"aux_loss"} of that.

  logits: of both, [B,H,W,C], None without the second. aux_weight: of its loss, in it already. The
  others: see `Loss.__call__`.
  """
  own, aux = logits
  losses = {"supervised_loss": loss(own, labels, step, steps, axis_name)}
  if aux is not None:
    losses["aux_loss"] = aux_weight * loss(aux, labels, step, steps, axis_name)
  return losses


def _class_weights(weights: tuple, num_classes: int) -> jax.Array | None:
  """As an array, None without any; ValueError unless there is one for each class."""
  if not weights:
    return None
  if len(weights) != num_classes:
    raise ValueError(f"class_weights has {len(weights)} numbers for {num_classes} classes")
  return jnp.asarray(weights, jnp.float32)
