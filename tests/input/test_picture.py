"""Pictures and masks as files, arrays and Pillow's images: one meaning, one clear error."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from semiseg_jax.input.decode import DataError
from semiseg_jax.input.pairs import Pairs
from semiseg_jax.input.picture import read_mask, read_picture
from semiseg_jax.labels import IGNORE

RGB = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
GREY = RGB[..., 0]
MASK = GREY % 3


@pytest.fixture
def stored(tmp_path):
  """A function: an image as Pillow reads it from a PNG, and that file."""

  def store(image):
    image.save(tmp_path / "stored.png")
    return Image.open(tmp_path / "stored.png"), tmp_path / "stored.png"

  return store


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_a_file_and_pillows_image_of_it_are_one_picture(mode, stored):
  deep = GREY.astype(np.uint16) * 256 + 77
  image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
  image, path = stored(image)
  assert image.mode == mode
  levels = read_picture(image)
  assert levels.shape == RGB.shape and levels.dtype == np.uint8
  np.testing.assert_array_equal(levels, read_picture(str(path)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBa", "La", "PA"])
def test_modes_that_no_png_has(mode):
  first = {"RGBa": "RGBA", "La": "LA", "PA": "P"}.get(mode, "RGB")
  image = Image.new("RGB", (4, 3), (200, 200, 200)).convert(first).convert(mode)
  assert np.abs(read_picture(image).astype(int) - 200).max() <= 4


def test_arrays():
  np.testing.assert_array_equal(read_picture(RGB), RGB)
  np.testing.assert_array_equal(read_picture(jnp.asarray(RGB)), RGB)
  alpha = np.concatenate([RGB, GREY[..., None]], -1)
  np.testing.assert_array_equal(read_picture(alpha), RGB)
  for grey in (GREY, GREY[..., None], Image.fromarray(GREY)):
    np.testing.assert_array_equal(read_picture(grey), np.stack([GREY] * 3, -1))


def truncated() -> Image.Image:
  encoded = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
    encoded, "PNG"
  )
  return Image.open(io.BytesIO(encoded.getvalue()[:3000]))


NO_PICTURES = {
  "float": (RGB / 255, "array of float64: give levels from 0 to 255 as uint8"),
  "deep": (RGB.astype(np.uint16), "array of uint16"),
  "yes or no": (RGB > 9, "array of bool"),
  "channels first": (RGB.transpose(2, 0, 1), r"shape \(3, 7, 9\), not \[H,W,3\] or \[H,W\]"),
  "batch": (RGB[None], r"shape \(1, 7, 9, 3\).*several pictures as a list"),
  "five channels": (np.zeros((4, 4, 5), np.uint8), r"shape \(4, 4, 5\)"),
  "row": (GREY[0], r"shape \(9,\)"),
  "empty": (RGB[:0], r"shape \(0, 9, 3\)"),
  "none": (None, "is a NoneType: give a path, an array"),
  "bytes": (b"png", "is a bytes: give a path"),
  "no range": (Image.fromarray(GREY / np.float32(2)), "Pillow's mode F, .*convert it to RGB"),
  "truncated": (truncated(), "the picture: the image does not decode"),
}


@pytest.mark.parametrize(("given", "message"), NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture(given, message):
  with pytest.raises(DataError, match=message):
    read_picture(given)


def test_paths_to_nothing_and_to_folders(tmp_path):
  for read in (read_picture, read_mask):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.png"):
      read(tmp_path / "none.png")
    with pytest.raises(DataError, match="is a folder: give its files as a list"):
      read(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"bad\.png: the .* does not decode"):
      read(tmp_path / "bad.png")


def test_masks(stored):
  image, path = stored(Image.fromarray(MASK).convert("P"))
  for given in (MASK, MASK.astype(np.int64), jnp.asarray(MASK), image, path, str(path)):
    np.testing.assert_array_equal(read_mask(given), MASK)
  for given, message in (
    (RGB, r"shape \(7, 9, 3\).*not colours"),
    (MASK / 2, "type float64"),
    (MASK.astype(int) - 1, "label id -1 does not fit"),
    (truncated(), "the mask does not decode"),
    (3, "is a int: give a path, an integer array"),
  ):
    with pytest.raises(DataError, match=message):
      read_mask(given)


def test_pairs_are_a_source(stored):
  _, path = stored(Image.fromarray(RGB))
  source = Pairs([path, GREY[:5]], [MASK, np.where(MASK[:5], 1, 9)], 3, ignore_index=9)
  assert len(source) == 2 and source.sizes == [(5, 9), (7, 9)] and source.labeled.all()
  np.testing.assert_array_equal(source[0]["image"], RGB)
  np.testing.assert_array_equal(source[0]["label"], MASK)
  np.testing.assert_array_equal(source[1]["label"], np.where(MASK[:5], 1, IGNORE))


def test_pairs_that_do_not_fit():
  with pytest.raises(ValueError, match="1 pictures and 0 masks"):
    Pairs([RGB], [], 3, IGNORE)
  with pytest.raises(ValueError, match="there is no picture with a mask"):
    Pairs([], [], 3, IGNORE)
  with pytest.raises(DataError, match="picture 1 is an array of float64"):
    Pairs([RGB, RGB / 2], [MASK, MASK], 3, IGNORE)
  with pytest.raises(DataError, match="7x9 in picture 0, 5x9 in mask 0"):
    Pairs([RGB], [MASK[:5]], 3, IGNORE)[0]
  with pytest.raises(DataError, match=r"mask 0: label ids \[2\] are neither in 0\.\.1"):
    Pairs([RGB], [MASK], 2, IGNORE)[0]
