"""Colour of 8-bit Pillow images: jitter as torchvision has it, and RandAugment's operators."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Picture = Image.Image


class Jitter(NamedTuple):
  """Spans of a colour jitter: factors lie in [1 - span, 1 + span], at least 0, hue in [-h, h]."""

  brightness: float
  contrast: float
  saturation: float
  hue: float


def draw_jitter(rng: np.random.Generator, spans: Jitter) -> tuple[tuple[str, float], ...]:
  """(kind, factor) of all four kinds, in a random order."""
  factors = [
    (kind, rng.uniform(-span, span) if kind == "hue" else rng.uniform(max(1 - span, 0), 1 + span))
    for kind, span in spans._asdict().items()
  ]
  return tuple(factors[i] for i in rng.permutation(len(factors)))


def jitter(image: Picture, factors: tuple[tuple[str, float], ...]) -> Picture:
  """The adjustments in the order given, each rounded to 8 bits."""
  for kind, factor in factors:
    image = hue(image, factor) if kind == "hue" else _ENHANCERS[kind](image).enhance(factor)
  return image


def hue(image: Picture, shift: float) -> Picture:
  """Hue moved by `shift` of the colour circle, in steps of a 256th."""
  channels = list(image.convert("HSV").split())
  step = int(shift * 255) % 256
  channels[0] = channels[0].point([(level + step) % 256 for level in range(256)])
  return Image.merge("HSV", channels).convert("RGB")


def gray(image: Picture) -> Picture:
  """Luma in all three channels."""
  return image.convert("L").convert("RGB")


def draw_operators(
  rng: np.random.Generator, count: int, magnitude: float, spread: float
) -> tuple[tuple[str, float], ...]:
  """RandAugment: `count` names drawn with replacement, each kept with probability 0.5.

  The magnitude of each is normal about `magnitude`, clipped to 0..10.
  """
  names = rng.choice(list(OPERATORS), count)
  kept = [str(name) for name in names if rng.random() < 0.5]
  return tuple((name, float(np.clip(rng.normal(magnitude, spread), 0, 10))) for name in kept)


def rand_augment(image: Picture, operators: tuple[tuple[str, float], ...]) -> Picture:
  """The named operators in order; magnitudes 0..10."""
  for name, magnitude in operators:
    image = OPERATORS[name](image, magnitude / 10)
  return image


def _solarize_add(image: Picture, t: float) -> Picture:
  add = int(110 * t)
  return image.point([min(i + add, 255) if i < 128 else i for i in range(256)] * 3)


def _enhance(kind: str) -> Callable[[Picture, float], Picture]:
  return lambda image, t: _ENHANCERS[kind](image).enhance(0.1 + 1.8 * t)


_ENHANCERS = {
  "brightness": ImageEnhance.Brightness,
  "contrast": ImageEnhance.Contrast,
  "saturation": ImageEnhance.Color,
  "sharpness": ImageEnhance.Sharpness,
}

# name -> function of the image and t = magnitude / 10
OPERATORS: Mapping[str, Callable[[Picture, float], Picture]] = {
  "autocontrast": lambda image, t: ImageOps.autocontrast(image),
  "equalize": lambda image, t: ImageOps.equalize(image),
  "invert": lambda image, t: ImageOps.invert(image),
  "posterize": lambda image, t: ImageOps.posterize(image, int(4 * t)),
  "solarize": lambda image, t: ImageOps.solarize(image, int(256 * t)),
  "solarizeadd": _solarize_add,
  "color": _enhance("saturation"),
  "contrast": _enhance("contrast"),
  "brightness": _enhance("brightness"),
  "sharpness": _enhance("sharpness"),
}
