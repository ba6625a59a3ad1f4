"""The numbers that people compare, and the confusion matrix's picture."""

import numpy as np
import pytest

from semiseg_jax.evaluation.boundary import BoundaryCounts
from semiseg_jax.evaluation.confusion_picture import confusion_picture
from semiseg_jax.evaluation.image_counts import ImageCounts
from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.evaluation.summary import classes_of_interest, summarize
from semiseg_jax.evaluation.survey import Survey
from semiseg_jax.input.palettes import make_palette

NAMES = ["road", "sky", "sun"]
# Two images of ten pixels; the first has no sun, the second no label at all.
COUNTS = ImageCounts(
  hits=np.array([[3, 2, 0], [0, 0, 0]]),
  predicted=np.array([[6, 2, 0], [10, 0, 0]]),
  predicted_labeled=np.array([[5, 2, 0], [0, 0, 0]]),
  truth=np.array([[4, 4, 0], [0, 0, 0]]),
  pixels=np.array([10, 10]),
  labeled=np.array([8, 0]),
)
SURVEY = Survey(
  scores=scores(np.diag([3, 2, 0])),
  loss=0.5,
  rows=np.array([1, 0]),
  counts=COUNTS,
  boundaries=BoundaryCounts(COUNTS.hits, COUNTS.hits + 1),
  confusion=np.array([[3, 0, 0, 1], [2, 2, 0, 0], [0, 0, 0, 0]]),
)


def test_means_over_images_and_over_pixels():
  found = summarize(SURVEY, [0, 1, 2], "paper", False)
  assert found.means.iou == pytest.approx((3 / 7 + 2 / 4) / 2, abs=1e-5)
  assert found.means.dice == pytest.approx((6 / 10 + 4 / 6) / 2, abs=1e-5)
  np.testing.assert_allclose(found.means.class_iou, [3 / 7, 1 / 2, np.nan], atol=1e-5)
  assert found.mean["iou"] == pytest.approx((3 / 6 + 2 / 4) / 2)
  assert found.mean["precision"] == pytest.approx((3 / 5 + 1) / 2)
  assert found.per_image.iou.shape == (2, 3)


def test_classes_of_interest_have_their_own_means():
  found = summarize(SURVEY, [1], "standard", False)
  assert found.means.iou == pytest.approx(1 / 2, abs=1e-5)
  assert found.mean["recall"] == pytest.approx(1 / 2)
  assert summarize(SURVEY, [0], "standard", False).means.iou == pytest.approx(1 / 2, abs=1e-5)
  assert np.isnan(summarize(SURVEY, [2], "paper", False).means.iou)


def test_iou_of_sums_is_half_of_dice():
  found = summarize(SURVEY, [0, 1, 2], "paper", True)
  assert found.means.iou == pytest.approx(found.means.dice / 2, abs=1e-5)
  assert found.of_pixels.iou[0] == 1 / 2  # the standard stays


@pytest.mark.parametrize(
  ("text", "ids"),
  [
    (None, [0, 1, 2]),
    ("all", [0, 1, 2]),
    ("sun, road", [0, 2]),
    ("1-2", [1, 2]),
    ("2,sky", [1, 2]),
  ],
)
def test_classes_by_name_and_id(text, ids):
  assert classes_of_interest(text, NAMES) == ids


@pytest.mark.parametrize("text", ["moon", "3", "1-3", "2-1", "road,,sky"])
def test_what_is_no_class(text):
  with pytest.raises(ValueError, match=r"config\.evaluation\.classes=.* is no class; .* 0 to 2"):
    classes_of_interest(text, NAMES)


@pytest.mark.parametrize("classes", [2, 19, 150])
def test_a_picture_of_every_size(classes):
  confusion = np.eye(classes, classes + 1, dtype=int) * 7
  args = np.full(classes, 7), make_palette(classes), [f"class {i}" for i in range(classes)]
  plain = confusion_picture(confusion, *args)
  confusion[0, -1] = 3
  wider = confusion_picture(confusion, *args)
  assert plain.dtype == np.uint8 and plain.shape[2] == 3
  assert plain.shape[0] == wider.shape[0] and plain.shape[1] <= wider.shape[1] < 2200
  deep = (plain == [8, 64, 129]).all(-1)
  assert deep.sum() > 60 * classes  # one square a class, which a number may cover in part


def test_classes_without_a_pixel_are_grey():
  args = make_palette(2), ["one", "two"]
  grey = lambda truth: (confusion_picture(np.zeros((2, 3), int), truth, *args) == 214).all(-1).sum()
  assert grey(np.array([0, 5])) > 5000 and grey(np.array([5, 5])) < 50
