"""Whatever kind of file it is: RGB images, index masks, pixels where they are stored."""

import io
import logging
import pickle

import numpy as np
import pytest
from PIL import Image, ImageOps

from semiseg_jax.input import decode
from tests.input.files import claiming, encoded, tiff, with_chunk, with_orientation

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = np.arange(54, dtype=np.uint16).reshape(6, 9) * 70  # to 3710: twelve bits


@pytest.fixture
def warned(monkeypatch, caplog):
  """Warnings of this test alone, as texts."""
  monkeypatch.setattr(decode, "_warned", set())
  caplog.set_level(logging.WARNING)
  return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_any_image_becomes_the_rgb_of_pillow(mode):
  image = Image.fromarray(PIXELS).convert(mode)
  decoded = decode.decode_image(encoded(image), "a")
  np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_rotation_tags_turn_as_viewers_do(kind, tag, warned):
  file = with_orientation(Image.fromarray(PIXELS), kind, tag)
  for _ in range(2):
    image = decode.decode_image(file, "a.jpg")
  shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
  np.testing.assert_array_equal(image, shown)
  assert decode.read_size(io.BytesIO(file), "a.jpg") == shown.shape[:2]
  said = "a.jpg: pictures with a rotation tag are turned as viewers show them"
  assert [text.partition(",")[0] for text in warned()] == ([said] if tag > 1 else [])
  if kind != "TIFF":  # of which no prepared set has any
    stored = decode.decode_image(file, "a.jpg", turned=False)
    assert stored.shape == PIXELS.shape


def test_a_damaged_rotation_tag_turns_nothing(warned):
  file = encoded(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0no tags at all")
  assert decode.decode_image(file, "a").shape == PIXELS.shape and not warned()
  assert decode.read_size(io.BytesIO(file), "a") == (6, 9)


def test_masks_turn_by_their_own_tag():
  ids = PIXELS[..., 0]
  for kind in ("PNG", "TIFF"):
    label = decode.decode_label(with_orientation(Image.fromarray(ids), kind, 6), "a")
    np.testing.assert_array_equal(label, np.rot90(ids, -1))


def test_swapped_sides_are_explained():
  with pytest.raises(decode.DataError, match=r"6x9 in a, 9x6 in b; the sides are swapped: .*tag"):
    decode.check_sizes(PIXELS, np.zeros((9, 6), np.uint8), "a", "b")
  with pytest.raises(decode.DataError, match=r"6x9 in a, 6x6 in b$"):
    decode.check_sizes(PIXELS, np.zeros((6, 6), np.uint8), "a", "b")


def packed_12_bits(values):
  """Rows of whole bytes."""
  pairs = np.pad(values, ((0, 0), (0, 1))).reshape(-1, 5, 2).astype(int)
  rows = [[(x >> 4, (x & 15) << 4 | y >> 8, y & 255) for x, y in row] for row in pairs]
  return np.asarray(rows, np.uint8).reshape(len(rows), -1)[:, :-1].tobytes()


RGB = GREY[..., None].repeat(3, -1)
TWELVE, SIXTEEN = 255 / 4095, 255 / 65535  # levels a unit
DEEP = {  # file, what one unit of GREY becomes, part of the warning
  "12 of 16 bits": (encoded(Image.fromarray(GREY)), TWELVE, "up to 3710, taken for 12 bits"),
  "10 of 16 bits": (tiff(GREY // 4), 255 / 1023 / 4, "up to 927, taken for 10 bits"),
  "14 of 16 bits": (tiff(GREY * 4), 255 / 16383 * 4, "up to 14840, taken for 14 bits"),
  "16 of 16 bits": (encoded(Image.fromarray(GREY * 16)), SIXTEEN * 16, None),
  "16 bits, RGB": (tiff(RGB * 16), SIXTEEN * 16, None),
  "signed": (tiff(GREY.astype(np.int16)), TWELVE, "taken for 12 bits"),
  "32 bits": (tiff(GREY.astype(np.uint32)), TWELVE, "taken for 12 bits"),
  "packed": (tiff(GREY, 12, packed_12_bits(GREY)), TWELVE, None),
  "packed, dark": (tiff(GREY // 8, 12, packed_12_bits(GREY // 8)), TWELVE / 8, None),
  "MaxSampleValue": (tiff(GREY, white=5000), 255 / 5000, None),
  "MaxSampleValue exceeded": (tiff(GREY, white=255), TWELVE, "taken for 12 bits"),
  "sBIT": (with_chunk(encoded(Image.fromarray(GREY)), b"sBIT", b"\x0d"), 255 / 8191, None),
  "sBIT, shifted": (
    with_chunk(encoded(Image.fromarray(GREY * 16)), b"sBIT", b"\x0c"),
    SIXTEEN * 16,
    None,
  ),
  "0..1": (tiff((GREY / 4095).astype(np.float32)), TWELVE, "up to 0.906, taken for levels of 0..1"),
  "0..1, overshot": (tiff((GREY / 3600).astype(np.float32)), 255 / 3600, "levels of 0..1"),
  "0..255": (tiff(GREY / 4095 * 255), TWELVE, "taken for levels of 0..255"),
  "0..255, RGB": (tiff((RGB / 4095 * 255).astype(np.float32)), TWELVE, "levels of 0..255"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_numbers_become_8_bits(name, warned):
  file, unit, warning = DEEP[name]
  for _ in range(2):
    image = decode.decode_image(file, "deep.tif")
  assert image.dtype == np.uint8
  np.testing.assert_allclose(image, np.minimum(RGB * unit, 255), atol=1)
  texts = warned()
  assert len(texts) == (warning is not None)
  assert not texts or (texts[0].startswith("deep.tif: ") and warning in texts[0])


def test_the_colours_of_deep_numbers():
  deep = PIXELS.astype(np.uint16) * 257
  for file in (tiff(deep), tiff(np.dstack([deep, deep[..., :1]]))):
    np.testing.assert_array_equal(decode.decode_image(file, "a"), PIXELS)


def test_deep_numbers_whose_white_is_zero():
  deep = PIXELS.astype(np.uint16) * 257
  image = decode.decode_image(tiff(deep[..., 0], colors=0), "a")
  np.testing.assert_array_equal(image, 255 - PIXELS[..., :1].repeat(3, -1))
  np.testing.assert_array_equal(image, decode.decode_image(tiff(PIXELS[..., 0], colors=0), "a"))


@pytest.mark.parametrize(
  ("pixels", "message"),
  [
    (np.where(GREY == 70, np.nan, GREY).astype(np.float32), "not every pixel is a number"),
    (np.where(GREY == 70, np.inf, GREY).astype(np.float32), "not every pixel is a number"),
    (GREY.astype(np.float32), r"levels from 0 to 3710 do not fit 0\.\.255"),
    (GREY.astype(np.int16) - 500, r"levels from -500 to 3210 do not fit"),
    (np.zeros((6, 9, 5), np.uint16), "5 channels are neither grey nor RGB|does not decode"),
  ],
)
def test_levels_that_are_none(pixels, message):
  with pytest.raises(decode.DataError, match=f"^far/a.tif: .*{message}"):
    decode.decode_image(tiff(pixels), "far/a.tif")


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_of_several_pictures_the_first_is_taken(kind, warned):
  first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
  options = {"lossless": True} if kind == "WEBP" else {}
  file = encoded(first, kind, save_all=True, append_images=[second], **options)
  np.testing.assert_array_equal(decode.decode_image(file, "a.tif"), PIXELS)
  assert warned() == ["a.tif holds several pictures: of such files the first is taken"]


def test_pictures_of_any_size_up_to_opencvs_limit():
  png = encoded(Image.fromarray(PIXELS[..., 0]))
  aerial, huge = claiming(png, 13_400, 13_400), claiming(png, 40_000, 40_000)
  assert decode.read_size(io.BytesIO(aerial), "a") == (13_400, 13_400)
  with pytest.raises(decode.DataError, match=r"a\.png: the mask does not decode"):
    decode.decode_label(aerial, "a.png")  # as its pixels end early, not as there are too many
  read_size = lambda file, where: decode.read_size(io.BytesIO(file), where)
  for read in (decode.decode_label, decode.decode_image, read_size):
    with pytest.raises(decode.DataError, match=r"a\.png: 40000x40000 pixels are more than 1,07"):
      read(huge, "a.png")


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
