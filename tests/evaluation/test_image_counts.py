"""Counts of masks and of their outlines, against plain loops and the authors' erosion."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.evaluation.boundary import count_boundaries, erode, packed, radius, unpacked
from semiseg_jax.evaluation.class_scores import class_scores
from semiseg_jax.evaluation.image_counts import (
  count_masks,
  inside_of,
  table_by_products,
  table_by_scattering,
)
from semiseg_jax.evaluation.metrics import confusion_matrix, scores
from semiseg_jax.labels import IGNORE

CLASSES = 4
COUNT = jax.jit(count_masks)
OUTLINES = jax.jit(count_boundaries, static_argnums=4)


def blobs(shape, seed=0):
  """Smooth random masks bool [B,H,W,CLASSES], which overlap and leave gaps."""
  rng = np.random.default_rng(seed)
  noise = rng.normal(size=(*shape, CLASSES)).astype(np.float32)
  return np.stack([cv2.GaussianBlur(x, (0, 0), 3) for x in noise]) > 0.05


def labels_of(shape, seed=1):
  labels = blobs(shape, seed).argmax(-1)
  unknown = blobs(shape, seed + 1)[..., 0] & blobs(shape, seed + 2)[..., 0]
  return np.where(unknown, IGNORE, labels).astype(np.int32)


def test_overlapping_masks_margins_and_pixels_without_a_label():
  masks, labels = blobs((3, 20, 24)), labels_of((3, 20, 24))
  sizes = np.array([[20, 24], [13, 17], [20, 24]])
  inside = inside_of(jnp.asarray(sizes), jnp.array([4, 5, -1]), (20, 24), (20, 24))
  labels[1, 13:] = labels[1, :, 17:] = labels[2] = IGNORE
  counts, confusion = COUNT(masks, jnp.asarray(labels), inside)
  table = np.zeros((CLASSES, CLASSES + 1), int)
  for i, (height, width) in enumerate([(20, 24), (13, 17), (0, 0)]):
    mask, label = masks[i, :height, :width], labels[i, :height, :width]
    known = label != IGNORE
    assert (counts.pixels[i], counts.labeled[i]) == (height * width, known.sum())
    for k in range(CLASSES):
      truth = label == k
      assert counts.hits[i, k] == (mask[..., k] & truth).sum()
      assert counts.predicted[i, k] == mask[..., k].sum()
      assert counts.predicted_labeled[i, k] == (mask[..., k] & known).sum()
      assert counts.truth[i, k] == truth.sum()
      table[k, :-1] += mask[truth].sum(0)
      table[k, -1] += (~mask[truth].any(-1)).sum()
  np.testing.assert_array_equal(confusion, table)
  assert table[:, -1].any() and table.sum() > counts.labeled.sum()  # some overlap, some are bare


def test_labels_finer_than_images():
  inside = inside_of(jnp.array([[2, 3]]), jnp.array([0]), (4, 4), (8, 8))
  assert inside.shape == (1, 8, 8) and inside[0, :4, :6].all() and inside.sum() == 24


@pytest.mark.parametrize("table", [table_by_products, table_by_scattering])
def test_large_counts_are_exact(table):
  columns = jnp.ones((1, 1500, 1001, 3), bool)
  assert int(table(columns, jnp.zeros((1, 1500, 1001), jnp.int32))[0, 0, 2]) == 1500 * 1001


def test_both_ways_of_counting_agree():
  columns = jnp.asarray(blobs((2, 16, 20)))
  truth = jnp.asarray(np.random.default_rng(0).integers(0, CLASSES, (2, 16, 20)))
  np.testing.assert_array_equal(
    table_by_products(columns, truth), table_by_scattering(columns, truth)
  )


def test_masks_of_one_class_a_pixel_are_a_confusion_matrix():
  labels, guess = labels_of((3, 20, 24)), blobs((3, 20, 24)).argmax(-1)
  masks = guess[..., None] == np.arange(CLASSES)
  inside = jnp.ones(labels.shape, bool)
  counts, confusion = COUNT(jnp.asarray(masks), jnp.asarray(labels), inside)
  expected = np.asarray(confusion_matrix(jnp.asarray(guess), jnp.asarray(labels), CLASSES))
  np.testing.assert_array_equal(confusion[:, :-1], expected)
  assert not confusion[:, -1].any()
  outlines = OUTLINES(jnp.asarray(masks), jnp.asarray(labels), inside, jnp.ones(3, int), 1)
  found = class_scores(counts, outlines)
  np.testing.assert_array_equal(found.iou, scores(expected).iou)
  right = np.diag(expected)
  np.testing.assert_allclose(found.precision, right / expected.sum(0))
  np.testing.assert_allclose(found.recall, right / expected.sum(1))
  harmonic = 2 / (1 / found.precision + 1 / found.recall)
  np.testing.assert_allclose(found.f1, harmonic)


def test_what_is_nowhere_has_no_score():
  """Class 2 is only predicted, 3 only there, 1 neither."""
  labels = jnp.asarray([[[0, 0, 3, IGNORE]]])
  masks = jnp.asarray([[[[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]]], bool)
  inside = jnp.ones(labels.shape, bool)
  outlines = OUTLINES(masks, labels, inside, jnp.array([1]), 1)
  found = class_scores(COUNT(masks, labels, inside)[0], outlines)
  np.testing.assert_equal(list(found.iou), [1.0, np.nan, 0.0, 0.0])
  np.testing.assert_equal(list(found.precision), [1.0, np.nan, 0.0, np.nan])
  np.testing.assert_equal(list(found.recall), [1.0, np.nan, np.nan, 0.0])
  np.testing.assert_equal(list(found.f1), [1.0, np.nan, 0.0, 0.0])
  np.testing.assert_equal(list(found.boundary_iou), [1.0, np.nan, 0.0, 0.0])


def band_of_the_authors(mask, by):
  """Their mask_to_boundary, at a radius that is given."""
  padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
  eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=by)
  return mask & ~(eroded[1:-1, 1:-1] > 0)


def test_boundaries_of_every_radius_in_one_batch():
  masks, labels = blobs((9, 40, 52)), blobs((9, 40, 52), seed=7).argmax(-1)
  near, inside = np.arange(1, 10), np.ones(labels.shape, bool)
  found = OUTLINES(masks, labels, inside, near, 9)
  for i in range(9):
    for k in range(CLASSES):
      bands = [band_of_the_authors(x, i + 1) for x in (masks[i, ..., k], labels[i] == k)]
      assert found.hits[i, k] == (bands[0] & bands[1]).sum()
      assert found.union[i, k] == (bands[0] | bands[1]).sum()


@pytest.mark.parametrize("classes", [1, 31, 32, 33, 150])
def test_any_number_of_classes_in_words(classes):
  masks = np.random.default_rng(0).random((2, 3, 4, classes)) < 0.5
  words = packed(jnp.asarray(masks))
  assert words.dtype == jnp.uint32 and words.shape == (2, 3, 4, -(-classes // 32))
  np.testing.assert_array_equal(unpacked(words, classes), masks)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 8, 29])
def test_erosion_is_exact_up_to_the_largest_radius(most):
  mask = np.ones((1, 70, 80, 1), bool)
  left = erode(jnp.asarray(mask), jnp.array([most]), most)
  assert left.sum() == (70 - 2 * most) * (80 - 2 * most) if most < 35 else not left.any()


def test_no_boundary_where_labels_end():
  """A mask that is right up to pixels without a label, in an image with margins."""
  labels = np.full((1, 30, 40), IGNORE, np.int32)
  labels[0, 5:20, 5:30] = 1
  masks = (np.arange(2) == 1) & np.ones((1, 30, 40, 1), bool)
  inside = np.zeros(labels.shape, bool)
  inside[:, :20, :35] = True
  found = OUTLINES(*map(jnp.asarray, (masks, labels, inside)), jnp.array([2]), 2)
  assert (found.hits[0, 1], found.union[0, 1]) == (2 * 25, 2 * 25)  # along the image's lower edge


def test_radius_is_a_share_of_the_diagonal():
  sizes = np.array([[375, 500], [1024, 2048], [3, 4]])
  np.testing.assert_array_equal(radius(sizes, 0.02), [12, 46, 1])  # 12.5 is rounded to even
