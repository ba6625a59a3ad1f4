"""Colours, overlays, panels and palette files."""

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.evaluation.pictures import (
  colorize,
  legend,
  overlay,
  panel,
  write_palette_png,
)
from semiseg_jax.labels import IGNORE
from tests import golden

PALETTE = np.array([(128, 64, 128), (244, 35, 232), (70, 70, 70)], np.uint8)


@golden.cases("reco/colormaps*")
def test_colours_of_the_originals_tables(case):
  for palette in case.values():
    ids = np.arange(min(len(palette), IGNORE)).reshape(1, -1)
    np.testing.assert_array_equal(colorize(ids, palette), palette[ids])
    assert not colorize(np.array([IGNORE]), palette).any()


def test_ids_without_a_colour_are_black():
  label = np.array([[0, 2], [3, IGNORE]], np.uint8)
  assert colorize(label, PALETTE).tolist() == [[[128, 64, 128], [70, 70, 70]], [[0] * 3, [0] * 3]]


def test_overlay_weighs_colour_and_image():
  image = np.full((1, 2, 3), 100, np.uint8)
  found = overlay(image, np.array([[1, IGNORE]]), PALETTE, weight=0.7)
  assert found.tolist() == [[[201, 54, 192], [30, 30, 30]]]


def test_palette_png_keeps_ids_and_shows_colours(tmp_path):
  label = np.array([[0, 1, 2], [2, IGNORE, 0]])
  write_palette_png(tmp_path / "a.png", label, PALETTE)
  with Image.open(tmp_path / "a.png") as picture:
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), label)
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colorize(label, PALETTE))


@pytest.mark.parametrize("size", [(33, 45), (96, 128), (300, 7), (1, 1)])
def test_panel_shows_four_magnified_tiles(size):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
  label, prediction = rng.integers(0, 3, (2, *size)).astype(np.uint8)
  label[0, 0] = IGNORE
  picture = panel(image, label, prediction, rng.random(size), PALETTE)
  factor = -(-256 // size[0]) if size[0] < 256 else 1
  height, width = factor * size[0], factor * size[1]
  assert picture.dtype == np.uint8 and picture.shape[0] >= max(height, 256)
  assert picture.shape[1] >= 4 * width
  tiles = picture[-height:]
  np.testing.assert_array_equal(tiles[::factor, :width:factor], image)
  starts = [round(i * (picture.shape[1] - width) / 3) for i in range(4)]
  for start, expected in zip(starts[1:], (label, prediction), strict=False):
    found = tiles[::factor, start : start + width : factor]
    np.testing.assert_array_equal(found, colorize(expected, PALETTE))


def test_confidence_grows_brighter_from_left_to_right():
  size = (256, 256)
  blank = np.zeros(size, np.uint8)
  confidence = np.tile(np.linspace(0, 1, 256), (256, 1))
  tile = panel(np.zeros((*size, 3), np.uint8), blank, blank, confidence, PALETTE)[-1, -256:]
  assert (np.diff(tile.astype(int).sum(-1)[::16]) > 0).all()


def test_panel_of_an_image_without_labels():
  blank = np.zeros((4, 4), np.uint8)
  ignored = np.full_like(blank, IGNORE)
  panel(np.zeros((4, 4, 3), np.uint8), ignored, blank, np.full((4, 4), np.nan), PALETTE)


def test_legend_wraps_and_names_only_what_is_shown():
  names = ["road", "sidewalk", "building"]
  one_line, three_lines = legend(PALETTE, names, 600), legend(PALETTE, names, 60)
  assert one_line.shape[1] == 600 and three_lines.shape[0] == 3 * one_line.shape[0]
  colours = lambda picture: {tuple(c) for c in picture.reshape(-1, 3).tolist()}
  assert {tuple(c) for c in PALETTE.tolist()} <= colours(one_line)
  shown = colours(legend(PALETTE, names, 600, [0, IGNORE]))
  assert (128, 64, 128) in shown and (244, 35, 232) not in shown and (0, 0, 0) in shown
