"""From what masks store to classes."""

import numpy as np
import pytest
from PIL import Image

from semiseg_jax.input.class_ids import ClassColors, ClassIds, MaskReader
from semiseg_jax.input.decode import DataError
from semiseg_jax.labels import IGNORE
from tests.input.files import encoded
from tests.input.test_palettes import shown_in

IDS = np.random.default_rng(0).integers(0, 3, (9, 14)).astype(np.uint8)
COLOURS = np.array([(200, 30, 0), (0, 90, 250), (10, 220, 60)], np.uint8)


def test_values_stand_for_classes():
  known = ClassIds(2, None, {0: 0, 7: 1, 255: 1}, ("soil", "plant"))
  np.testing.assert_array_equal(known(np.uint8([[0, 7, 255]]), "m"), [[0, 1, 1]])
  with pytest.raises(DataError, match=r'm: label ids \[8\] are not in \[0, 7, 255\]; .*8 = "NAME"'):
    known(np.uint8([[0, 7, 8]]), "m")


def test_what_to_write_is_said():
  known = ClassIds(3, 9, names=("a", "b", "c"))
  with pytest.raises(DataError, match=r'ignored id 9; .* values = {0 = "a", 3 = "b", 40 = "c"}$'):
    known(np.uint8([[0, 3, 40, 9]]), "m")
  with pytest.raises(DataError, match=r"nor the ignored id 9$"):  # of arrays, no folder
    ClassIds(3, 9)(np.uint8([[4]]), "m")


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_stand_for_classes(alpha):
  read = MaskReader(ClassIds(3, IGNORE), ClassColors(COLOURS, (255, 255, 255)))
  drawn = COLOURS[IDS]
  drawn[0, :5] = 255
  wanted = IDS.copy()
  wanted[0, :5] = IGNORE
  image = Image.fromarray(drawn).convert("RGBA" if alpha else "RGB")
  np.testing.assert_array_equal(read(encoded(image), "m"), wanted)
  drawn[3, 3] = (10, 220, 61)
  image = Image.fromarray(drawn)
  with pytest.raises(DataError, match=r"^m: no class has the colour \(10, 220, 61\), .*0\.79%"):
    read(encoded(image), "m")
  image.putalpha(7)
  with pytest.raises(DataError, match="m: the mask has shape"):  # half there
    read(encoded(image), "m")


def test_colours_without_a_palette_are_no_ids():
  with pytest.raises(DataError, match=r"shape \(9, 14, 3\).*not colours.*palette"):
    MaskReader(ClassIds(3, IGNORE))(encoded(Image.fromarray(COLOURS[IDS])), "m")


@pytest.mark.parametrize("keep", [(0, 1, 2), (1, 2), (2,), (0, 2)])
def test_the_palette_of_a_folder_says_what_a_files_own_means(keep):
  read = MaskReader(ClassIds(3, IGNORE), ClassColors(COLOURS, None))
  ids = np.asarray(keep, np.uint8)[IDS % len(keep)]
  drawn = Image.fromarray(COLOURS[ids])
  for image in (drawn.quantize(), shown_in(ids, COLOURS), shown_in(ids, 255 - COLOURS)):
    np.testing.assert_array_equal(read(encoded(image), "m"), ids)
    read = MaskReader(ClassIds(3, IGNORE), ClassColors(COLOURS, None))


def test_colours_that_do_not_tell_ids_apart():
  read = MaskReader(ClassIds(3, IGNORE), ClassColors(COLOURS, None))
  np.testing.assert_array_equal(read(encoded(shown_in(IDS, [COLOURS[0]] * 3)), "m"), IDS)


def test_palettes_that_contradict():
  read = MaskReader(ClassIds(3, IGNORE))
  both = [encoded(Image.fromarray(COLOURS[kept]).quantize()) for kept in (IDS, IDS // 2)]
  read(both[0], "masks/a.png")
  with pytest.raises(DataError, match=r"^b\.png shows id 0 as .*, masks/a\.png as .*renumbered"):
    read(both[1], "b.png")
  read = MaskReader(ClassIds(3, IGNORE))
  for ids, palette in (
    (IDS % 2, COLOURS),
    (IDS, [*COLOURS[:2], (1, 1, 1)]),
  ):  # as far as they are used
    np.testing.assert_array_equal(read(encoded(shown_in(ids, palette)), "m"), ids)
