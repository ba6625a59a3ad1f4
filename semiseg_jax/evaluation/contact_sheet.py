"""Many images and their labels on one page, for people."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from semiseg_jax.evaluation.pictures import legend, overlay, text_line
from semiseg_jax.labels import IGNORE

_WIDTH = 1600
_PAIRS, _WIDE_PAIRS, _WIDE = 4, 2, 1.5  # pairs side by side; how many of images wider than _WIDE
_GAP, _MARGIN, _SPACE = 2, 10, 14  # pixels: inside a pair, around the page, between pairs
_INSIDE = _WIDTH - 2 * _MARGIN
_TITLE, _HEADING, _CAPTION = 22, 17, 13  # sizes of letters
_PAPER, _INK, _PALE = (255, 255, 255), (24, 24, 24), (110, 110, 110)
_WEIGHT = 0.55  # of the labels' colours
_STRIPES, _STRIPE = 9, 2  # pixels from stripe to stripe, and of one


class Sample(NamedTuple):
  """image: uint8 [H,W,3]; label: integer [H,W], IGNORE where there is none."""

  caption: str
  image: np.ndarray
  label: np.ndarray


class Section(NamedTuple):
  heading: str
  note: str
  samples: Sequence[Sample]


def contact_sheet(
  title: str, sections: Sequence[Section], palette: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
  """uint8 [h,1600,3]: for every sample the image and beside it the image under its labels.

  Pixels without a label are dark and hatched. A legend of the classes that occur stands on top.
  """
  labels = [sample.label for section in sections for sample in section.samples]
  shown = sorted(set(itertools.chain(*map(np.unique, labels))) - {IGNORE})
  parts = [_line(title, _TITLE, above=_MARGIN)]
  parts.append(_on_page(legend(palette, class_names, _INSIDE, shown)))
  parts.append(_line("hatched and dark: no label", _CAPTION, _PALE))
  for section in sections:
    parts.append(_line(section.heading, _HEADING, above=2 * _SPACE))
    parts.append(_line(section.note, _CAPTION, _PALE))
    parts += _rows(section.samples, palette)
  return np.concatenate([*parts, _on_page(np.zeros((0, 0, 3), np.uint8), above=_MARGIN)])


def _rows(samples: Sequence[Sample], palette: np.ndarray) -> list[np.ndarray]:
  """All samples, a fixed number side by side; each is as wide as that allows."""
  if not samples:
    return []
  height, width = samples[0].label.shape
  per_row = _WIDE_PAIRS if width > _WIDE * height else _PAIRS
  room = (_INSIDE + _SPACE) // per_row
  tile = (room - _SPACE - _GAP) // 2
  rows = []
  for start in range(0, len(samples), per_row):
    pairs = [_pair(s, palette, tile) for s in samples[start : start + per_row]]
    canvas = np.full((max(map(len, pairs)), _INSIDE, 3), _PAPER, np.uint8)
    for place, pair in enumerate(pairs):
      canvas[: len(pair), place * room : place * room + pair.shape[1]] = pair
    rows.append(_on_page(canvas, above=_MARGIN // 2))
  return rows


def _pair(sample: Sample, palette: np.ndarray, width: int) -> np.ndarray:
  """image | labels, each so many pixels wide, under the caption."""
  height = max(1, round(width / sample.label.shape[1] * sample.label.shape[0]))
  method = cv2.INTER_LINEAR if width > sample.label.shape[1] else cv2.INTER_AREA
  image = cv2.resize(sample.image, (width, height), interpolation=method)
  label = sample.label.astype(np.uint8)
  label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
  colored = _hatch(overlay(image, label, palette, _WEIGHT), image, label == IGNORE)
  gap = np.full((height, _GAP, 3), _PAPER, np.uint8)
  tiles = np.concatenate([image, gap, colored], axis=1)
  if not sample.caption:
    return tiles
  return np.concatenate([text_line(sample.caption, _CAPTION, tiles.shape[1], _INK), tiles])


def _hatch(colored: np.ndarray, image: np.ndarray, ignored: np.ndarray) -> np.ndarray:
  """Dark image with pale stripes where ignored."""
  rows, columns = np.indices(ignored.shape, sparse=True)
  stripes = (rows + columns) % _STRIPES < _STRIPE
  hatched = np.where(stripes[..., None], 150, image // 3).astype(np.uint8)
  return np.where(ignored[..., None], hatched, colored)


def _line(text: str, size: int, ink: tuple[int, int, int] = _INK, above: int = 0) -> np.ndarray:
  return _on_page(text_line(text, size, _INSIDE, ink), above)


def _on_page(picture: np.ndarray, above: int = 0) -> np.ndarray:
  """The picture with margins, `above` pixels of them on top."""
  right = _WIDTH - _MARGIN - picture.shape[1]
  return np.pad(picture, ((above, 0), (_MARGIN, right), (0, 0)), constant_values=255)
