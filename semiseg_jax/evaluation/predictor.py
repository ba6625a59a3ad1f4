"""A network over pictures of any size, in the way that config.inference names."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from semiseg_jax import fields
from semiseg_jax.evaluation.decide import argmax_with_confidence
from semiseg_jax.evaluation.inference import MULTIPLE, padded_size, whole
from semiseg_jax.evaluation.multiscale import SCALES, Multiscale
from semiseg_jax.evaluation.sliding import Sliding, make_grid
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.transforms.geometry import reflect_to
from semiseg_jax.values import Batch, Scales, Side, Size

_KEY = "config.inference"


@dataclasses.dataclass(frozen=True)
class Inference:
  """How a picture is seen; as the defaults have it, whole and once.

  mode: whole | sliding (evaluation/sliding.py) | multiscale (evaluation/multiscale.py). flip: the
  mean with the mirrored picture's logits; None: in mode sliding alone, as pytorch-segmentation.
  multiple: whole and scaled pictures are reflected at right and bottom up to multiples of it.
  batch: pictures of one size, or windows of one picture, that are seen together. window, stride:
  sliding, (height, width); None: 2/5 of the picture's sides, 2/3 of the window's height. Only given
  windows are of one size for all pictures, and one program. scales: multiscale. as_coded: with the
  flaws of pytorch-segmentation, gaps in tall pictures and blank edges at some scales; multiple is
  then 1.
  """

  mode: Literal["whole", "sliding", "multiscale"] = "whole"
  flip: bool | None = None
  multiple: Side = MULTIPLE
  batch: Batch = 1
  window: Size | None = None
  stride: Size | None = None
  scales: Scales = SCALES
  as_coded: bool = False

  def __post_init__(self):
    if self.window and self.stride and any(map(int.__gt__, self.stride, self.window)):
      raise ValueError(f"{_KEY}.stride={self.stride} leaves gaps between windows of {self.window}")
    if self.stride and not self.window:
      raise ValueError(f"{_KEY}.stride={self.stride} wants {_KEY}.window, too")

  @property
  def mirrors(self) -> bool:
    return self.mode == "sliding" if self.flip is None else self.flip


class Maps(NamedTuple):
  """label uint8 [B,H,W]; where wanted confidence float32 [B,H,W], the label's probability, and
  probabilities [B,H,W,K]."""

  label: Any
  confidence: Any = None
  probabilities: Any = None


class Predictor:
  """What a network says of pictures, decided pixel by pixel.

  decide: from mean logits [...,K] to a tree of arrays [...,*]; None in it is left out.
  """

  def __init__(self, network: Network, settings: Inference, decide: Callable[[jax.Array], Any]):
    multiple = 1 if settings.as_coded else settings.multiple
    self._padded = functools.partial(padded_size, multiple=multiple)
    self._settings = settings
    if settings.mode == "sliding":
      window = {"window": settings.window, "stride": settings.stride}
      grid = functools.partial(make_grid, **window, one_stride=settings.as_coded)
      options = {"grid": grid, "flip": settings.mirrors, "batch": settings.batch}
      self._seen = Sliding(network, decide, **options)
    elif settings.mode == "multiscale" or settings.mirrors:
      scales = settings.scales if settings.mode == "multiscale" else (1.0,)
      options = {"scales": scales, "flip": settings.mirrors, "multiple": multiple}
      self._seen = Multiscale(network, decide, **options, blank_edges=settings.as_coded)
    else:
      self._seen = jax.jit(lambda variables, images: decide(whole(network, variables, images)))

  @property
  def at_once(self) -> int:
    """How many pictures a call takes at most; fewer are filled up."""
    return 1 if isinstance(self._seen, Sliding) else self._settings.batch

  def group(self, size: Size) -> Hashable:
    """Pictures of equal groups can be in one call."""
    return size if isinstance(self._seen, Multiscale) else self._padded(size)

  def __call__(self, variables: Variables, images: Sequence[np.ndarray]) -> Any:
    """The tree of arrays [B,H',W',...] for uint8 pictures [H,W,3] of one group, at least as large;
    `of_picture` cuts one's own out. On the device, and maybe not yet computed."""
    if isinstance(self._seen, Sliding):
      found = self._seen(variables, images[0])
      return jax.tree.map(lambda x: x[None], found)
    if not isinstance(self._seen, Multiscale):
      images = [reflect_to(image, self._padded(image.shape[:2])) for image in images]
    filled = [images[min(i, len(images) - 1)] for i in range(self.at_once)]
    return self._seen(variables, np.stack(filled))


def of_picture(found: Any, row: int, size: Size) -> Any:
  """One picture's arrays [H,W,...] of what a Predictor found."""
  return jax.tree.map(lambda x: np.asarray(x)[row, : size[0], : size[1]], found)


def maps(
  logits: jax.Array, *, confidence: bool = False, probabilities: DTypeLike | None = None
) -> Maps:
  """The most likely class, and what is wanted of the softmax of logits [...,K].

  probabilities: their type, None to leave them out.
  """
  label, share = argmax_with_confidence(logits)
  every = None if probabilities is None else jax.nn.softmax(logits).astype(probabilities)
  return Maps(label.astype(jnp.uint8), share if confidence else None, every)


def read_inference(
  text: str, values: Mapping[str, Any] | None = None, where: str = "inference"
) -> Inference:
  """The `values` of config.inference changed by text such as "mode=sliding,window=(512,512)".

  where: what the error calls the text. Raises ValueError for what isn't such text, and for unknown
  keys and values that are not allowed.
  """
  try:
    _, given = fields.read_call(f"inference({text})")
  except ValueError:
    raise ValueError(f"{where}={text!r} should be like mode=sliding,window=(512,512)") from None
  return fields.make(Inference, _KEY, "inference", {**(values or {}), **given})
