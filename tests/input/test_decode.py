"""Whatever kind of file it is: RGB images, index masks, pixels where they are stored."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.input import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def encoded(image, kind="PNG", **kwargs):
  buffer = io.BytesIO()
  image.save(buffer, kind, **kwargs)
  return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_any_image_becomes_the_rgb_of_pillow(mode):
  image = Image.fromarray(PIXELS).convert(mode)
  decoded = decode.decode_image(encoded(image), "a")
  np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


def test_rotation_tags_are_not_applied():
  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  image = encoded(Image.fromarray(PIXELS), "JPEG", exif=exif)
  assert decode.decode_image(image, "a").shape == (6, 9, 3)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_masks_keep_their_ids(mode):
  ids = np.arange(54, dtype=np.uint8).reshape(6, 9)
  if mode == "P":
    image = Image.fromarray(ids, "L").convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette([200, 10, 10] * 256)
  elif mode == "1":
    ids = ids % 2
    image = Image.fromarray(ids.astype(bool))
  else:
    image = Image.fromarray(ids.astype(np.uint16) if mode == "I;16" else ids)
  label = decode.decode_label(encoded(image), "a")
  assert label.dtype == np.uint8
  np.testing.assert_array_equal(label, ids)


def test_ids_beyond_8_bits_are_an_error():
  image = Image.fromarray(np.full((2, 2), 300, np.uint16))
  with pytest.raises(decode.DataError, match=r"mask\.png: label id 300 does not fit"):
    decode.decode_label(encoded(image), "mask.png")


def test_errors_survive_the_way_out_of_a_worker():
  error = pickle.loads(pickle.dumps(decode.DataError("kind", "message")))
  assert error.kind == "kind" and str(error) == "message"
