"""How levels become a network's input."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Normalization(NamedTuple):
  """How levels become a network's input; it must be the one that its weights were trained with.

  mean, std: of each channel of the input, in its order. bgr: the input's channels are blue, green,
  red. unit: levels are divided by 255 first.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float] = (1.0, 1.0, 1.0)
  bgr: bool = False
  unit: bool = False


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), unit=True)
COCO = Normalization((104.008, 116.669, 122.675), bgr=True)  # DST-CBC
NORMALIZATIONS = {"imagenet": IMAGENET, "coco": COCO}
for _name, _mean in {  # (level - mean) / 255, by the mean in RGB (Alonso et al. 2021)
  "pascal": (122.6789143, 116.66876762, 104.00698793),
  "cityscapes": (73.15835921, 82.90891754, 72.39239876),
  "half": (127.5, 127.5, 127.5),
}.items():
  NORMALIZATIONS[f"{_name}_rgb"] = Normalization(_mean, (255.0, 255.0, 255.0))
  NORMALIZATIONS[f"{_name}_bgr"] = Normalization(_mean[::-1], (255.0, 255.0, 255.0), bgr=True)
for _name, _mean, _std in (  # pytorch-segmentation's, of each data set's own images
  ("voc", (0.45734706, 0.43338275, 0.40058118), (0.23965294, 0.23532275, 0.2398498)),
  ("cityscapes", (0.28689529, 0.32513294, 0.28389176), (0.17613647, 0.18099176, 0.17772235)),
  ("ade20k", (0.48897059, 0.46548275, 0.4294), (0.22861765, 0.22948039, 0.24054667)),
  ("cocostuff", (0.43931922, 0.41310471, 0.37480941), (0.24272706, 0.23649098, 0.23429529)),
):
  NORMALIZATIONS[f"zoo_{_name}"] = Normalization(_mean, _std, unit=True)


def normalize(images: jax.Array, normalization: Normalization = IMAGENET) -> jax.Array:
  """RGB levels [...,3] to the network's float32 input, (level - mean) / std."""
  levels = images.astype(jnp.float32)
  if normalization.bgr:
    levels = levels[..., ::-1]
  if normalization.unit:
    levels = unit(levels)
  mean, std = (np.array(x, np.float32) for x in (normalization.mean, normalization.std))
  return (levels - mean) / std


def mean_levels(normalization: Normalization) -> np.ndarray:
  """float32 [3], the RGB levels that `normalize` turns into 0, to within rounding."""
  levels = np.float32(normalization.mean) * np.float32(255 if normalization.unit else 1)
  return levels[::-1] if normalization.bgr else levels


def unit(levels: jax.Array) -> jax.Array:
  """level / 255, correctly rounded for the 256 levels.

  Compilers turn a division by a constant into a product that is off by an ulp, which a second
  `eight_bit_confidence` would make a level. Here the first product is exact and the second tiny.
  """
  high = np.float32(2.0**-8 + 2.0**-16)
  low = np.float32(1 / 255 - float(high))
  return levels * high + levels * low
