"""C3-SemiSeg's augmentation: Pillow's resizing, OpenCV's rotation, colour on the strong view.

Labelled images are rotated last, on the crop; unlabelled ones first, at full size and in floating
point. Images are 8-bit between the steps: truncated where floating point ends, rounded by Pillow.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import grain
import numpy as np
from PIL import Image

from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry, photometric, zoo
from semiseg_jax.transforms.geometry import Record, Size
from semiseg_jax.values import Range, Scales, Share, Side

Degrees = Annotated[int, Range(0, 180)]
Taps = Annotated[int, Range(0, 255)]

_MAGNITUDE, _SPREAD, _OPERATORS = 10, 0.5, 2  # RandAugment's, of the strong view
VIEWS = {  # is the "image", is the "strong" view one with colour?
  "weak_strong": (False, True),
  "strong_strong": (True, True),
  "weak_weak": (False, False),
}


class Draws(NamedTuple):
  """angle: degrees; scale: on the resized image; row, column: corner of the crop in what the
  margins have made of it."""

  angle: int
  scale: float
  row: int
  column: int
  flip: bool


class Colors(NamedTuple):
  """jitter: (kind, factor) in order; operators: (name, magnitude) of RandAugment, in order."""

  jitter: tuple[tuple[str, float], ...] = ()
  operators: tuple[tuple[str, float], ...] = ()
  gray: bool = False


def resized_size(size: Size, height: int, scale: float) -> Size:
  """Of an image brought to that height and then scaled."""
  return geometry.scaled_size((height, int(size[1] / size[0] * height)), scale)


def resize_crop_flip(record: Record, height: int, draws: Draws, crop: Size) -> Record:
  """To the height, by the scale, padded where the crop does not fit, cut, flipped; not rotated.

  The margins, black and IGNORE, lie on both sides: each as wide as what misses.
  """
  native = record["image"].shape[:2]
  for size in (resized_size(native, height, 1.0), resized_size(native, height, draws.scale)):
    record = geometry.each(record, geometry.pillow_bilinear, geometry.pillow_nearest, size)
  record = geometry.fill(record, crop, IGNORE, around=True)
  record = geometry.crop(record, draws.row, draws.column, crop)
  return geometry.flip(record) if draws.flip else record


def rotate(record: Record, angle: int) -> Record:
  """By whole degrees, with corners that are black, and IGNORE in the label."""
  return geometry.each(
    record,
    lambda image: geometry.rotate_in_steps(image, angle),
    lambda label: geometry.rotate_label(label, angle, IGNORE),
  )


def unlabeled_geometry(record: Record, height: int, draws: Draws, crop: Size) -> Record:
  """Rotation first, of float32 levels, which are truncated to 8 bits after it."""
  levels = {**record, "image": record["image"].astype(np.float32)}
  rotated = rotate(levels, draws.angle)
  rotated["image"] = geometry.truncated(rotated["image"])
  return resize_crop_flip(rotated, height, draws, crop)


def blurred(image: np.ndarray, taps: int, sigma: float) -> np.ndarray:
  """In floating point, with `taps` made odd; truncated to 8 bits."""
  return geometry.truncated(geometry.blur(image.astype(np.float32), taps | 1, sigma))


def color(image: np.ndarray, colors: Colors) -> np.ndarray:
  """Jitter, RandAugment's operators, grey: uint8 to uint8."""
  picture = photometric.jitter(Image.fromarray(image), colors.jitter)
  picture = photometric.rand_augment(picture, colors.operators)
  return np.asarray(photometric.gray(picture) if colors.gray else picture)


def labeled_item(record: Record, height: int, draws: Draws, colors: Colors, crop: Size) -> Record:
  """Colour after the crop, and rotation last: its corners are cut into the crop."""
  record = resize_crop_flip(record, height, draws, crop)
  record["image"] = color(record["image"], colors)
  return rotate(record, draws.angle)


@dataclass(frozen=True)
class C3(grain.transforms.RandomMap):
  """Labelled images.

  height: pixels that every image is brought to. scales: one of which is drawn for each image.
  rotation: largest angle in whole degrees. Of colour the training script uses nothing; the loader
  has jitter (with probability 0.8, spans of 0.8 of it and 0.2 for hue), gray (a probability) and
  blur (taps of a Gaussian, made odd, used half of the time).
  """

  height: Side = 512
  scales: Scales = (1.0,)
  rotation: Degrees = 10
  flip: bool = True
  jitter: Share = 0.0
  gray: Share = 0.0
  blur: Taps = 0
  crop: Size = (256, 512)

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    if self.blur and rng.random() < 0.5:
      record = {**record, "image": blurred(record["image"], self.blur, rng.uniform(0.1, 2.0))}
    draws = _draw(self, rng, record["image"].shape[:2])
    return labeled_item(record, self.height, draws, self.draw_colors(rng), self.crop)

  def draw_colors(self, rng: np.random.Generator) -> Colors:
    factors = ()
    if self.jitter and rng.random() < 0.8:
      spans = photometric.Jitter(*[0.8 * self.jitter] * 3, hue=0.2 * self.jitter)
      factors = photometric.draw_jitter(rng, spans)
    return Colors(factors, gray=bool(rng.random() < self.gray))


@dataclass(frozen=True)
class C3Unlabeled(grain.transforms.RandomMap):
  """Unlabelled images: two views of one geometry, "image" for the teacher and "strong".

  jitter: its spans are half of it, a quarter for hue. rand_augment: two of RandAugment's operators
  on strong views. gray: a probability. views: "weak_strong", or "strong_strong" and "weak_weak"
  (the options siam_strong and siam_weak). Other fields as in C3.
  """

  height: Side = 512
  scales: Scales = (1.0,)
  rotation: Degrees = 10
  flip: bool = True
  jitter: Share = 1.0
  rand_augment: bool = True
  gray: Share = 0.0
  views: Literal[*VIEWS] = "weak_strong"
  crop: Size = (256, 512)

  def random_map(self, record: Record, rng: np.random.Generator) -> Record:
    draws = _draw(self, rng, record["image"].shape[:2])
    record = unlabeled_geometry(record, self.height, draws, self.crop)
    image, strong = (
      color(record["image"], self.draw_colors(rng)) if colored else record["image"]
      for colored in VIEWS[self.views]
    )
    return {**record, "image": image, "strong": strong}

  def draw_colors(self, rng: np.random.Generator) -> Colors:
    """Of one strong view."""
    factors = ()
    if self.jitter:
      spans = photometric.Jitter(*[0.5 * self.jitter] * 3, hue=0.25 * self.jitter)
      factors = photometric.draw_jitter(rng, spans)
    operators = ()
    if self.rand_augment:
      operators = photometric.draw_operators(rng, _OPERATORS, _MAGNITUDE, _SPREAD)
    return Colors(factors, operators, bool(rng.random() < self.gray))


@dataclass(frozen=True)
class C3Eval:
  """`base_size` pixels along the longer side: the image bilinear without antialiasing and
  truncated to 8 bits, the label by Pillow's nearest."""

  base_size: Side = 1024

  def __call__(self, record: Record) -> Record:
    size = self.output_size(record["image"].shape[:2])
    return geometry.each(
      record,
      lambda image: geometry.truncated(geometry.linear(image, size)),
      lambda label: geometry.pillow_nearest(label, size),
    )

  def output_size(self, size: Size) -> Size:
    return zoo.longer_side(size, self.base_size)


def _draw(transform: C3 | C3Unlabeled, rng: np.random.Generator, size: Size) -> Draws:
  angle = int(rng.integers(-transform.rotation, transform.rotation, endpoint=True))
  scale = float(rng.choice(transform.scales))
  padded = [
    have + 2 * max(want - have, 0)
    for have, want in zip(resized_size(size, transform.height, scale), transform.crop, strict=True)
  ]
  row, column = geometry.draw_corner(rng, tuple(padded), transform.crop)
  return Draws(angle, scale, row, column, transform.flip and bool(rng.random() < 0.5))
