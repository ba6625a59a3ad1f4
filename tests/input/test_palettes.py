"""What the palette of a mask file gives away."""

import io

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.input import decode
from semiseg_jax.input.palettes import make_palette, renumbered, voc_palette
from tests.input.files import encoded

IDS = np.random.default_rng(1).integers(0, 4, (12, 10)).astype(np.uint8)
VOC = voc_palette()[:4]
BRIGHT = np.array([(0, 0, 0), (0, 0, 255), (255, 255, 0), (90, 200, 30)], np.uint8)


def shown_in(ids: np.ndarray, palette) -> Image.Image:
  """An honest palette file: these ids, in these colours."""
  image = Image.fromarray(ids, mode="P")
  palette = np.asarray(palette, np.uint8)
  if ids.max() >= len(palette):  # or Pillow stores too few bits
    palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
  image.putpalette(palette.tobytes())
  return image


def greys_of(ids):
  return Image.fromarray(ids)


@pytest.mark.parametrize("keep", [(0, 1, 2, 3), (0, 3), (2, 3), (3,)])
@pytest.mark.parametrize(
  ("colours", "kind", "message"),
  [
    (VOC, "PNG", "colour of Pascal VOC's class"),
    (BRIGHT, "PNG", "this mask's colours alone|no complaint"),
    (None, "PNG", "shows id . as the grey"),
    (None, "GIF", "the mask is a GIF, whose colours programs renumber"),
  ],
)
def test_files_made_by_colours(keep, colours, kind, message):
  """As programs make them that pick a palette for every file."""
  ids = np.asarray(keep, np.uint8)[IDS % len(keep)]
  image = Image.fromarray(ids if colours is None else colours[ids])
  if kind == "PNG":
    image = image.quantize()
  with Image.open(io.BytesIO(encoded(image, kind))) as file:
    stored = np.asarray(file)
  if colours is BRIGHT and 0 not in keep and len(keep) > 1:
    return  # nothing in this file alone tells: see MaskReader, which compares files
  assert kind == "GIF" or (stored != ids).any()
  with pytest.raises(decode.DataError, match=f"^m.png: .*({message})"):
    decode.decode_label(encoded(image, kind), "m.png")


@pytest.mark.parametrize(
  "palette",
  [
    VOC, voc_palette(), make_palette(4), make_palette(256), BRIGHT, BRIGHT[[1, 2, 3, 0]],
    [(7, 9, 11)] * 256, [(0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255)],
    [(i, i, i) for i in range(256)], [(128, 64, 128), (244, 35, 232), (70, 70, 70), (0, 0, 0)],
    [(128, 128, 128), (128, 0, 0), (128, 128, 0), (64, 64, 128)],
  ],
)  # fmt: skip
@pytest.mark.parametrize("keep", [(0, 1, 2, 3), (0, 1, 255), (1, 2)])
def test_files_that_hold_what_was_meant(palette, keep):
  ids = np.asarray(keep, np.uint8)[IDS % len(keep)]
  label = decode.decode_label(encoded(shown_in(ids, palette)), "m.png")
  np.testing.assert_array_equal(label, ids)


def test_ids_without_a_colour():
  assert renumbered(IDS, np.zeros((0, 3), np.uint8)) == ""


@pytest.mark.parametrize(
  ("image", "kind", "options", "message"),
  [
    (greys_of(IDS), "JPEG", {}, "is a JPEG, whose compression changes"),
    (Image.fromarray(VOC[IDS]), "JPEG", {}, "is a JPEG"),
    (greys_of(IDS), "TIFF", {"compression": "jpeg"}, "is a TIFF, whose compression changes"),
    (Image.fromarray(VOC[IDS]), "WEBP", {}, "is a WEBP"),
    (Image.fromarray((IDS - 1e-4).astype(np.float32)), "TIFF", {}, r"float32, such as [0-2]\.9999"),
    (Image.fromarray(np.where(IDS, IDS, np.nan).astype(np.float32)), "TIFF", {}, "such as nan"),
    (Image.fromarray((IDS / 9).astype(np.float32)), "TIFF", {}, "such as 0"),
    (Image.fromarray(IDS.astype(np.float32)), "TIFF", {}, "though all of them are whole"),
  ],
)
def test_files_that_keep_no_ids(image, kind, options, message):
  """Whatever they are called."""
  with pytest.raises(decode.DataError, match=rf"^masks/m\.png: the mask .*{message}.*save"):
    decode.decode_label(encoded(image, kind, **options), "masks/m.png")
