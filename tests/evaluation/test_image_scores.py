"""Scores of images against the original's, and its test loop from logits to the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.evaluation.decide import Rule
from semiseg_jax.evaluation.image_counts import ImageCounts, count_masks
from semiseg_jax.evaluation.image_scores import image_means, image_scores, with_labels
from semiseg_jax.evaluation.metrics import scores
from semiseg_jax.losses.labeled import make_loss
from tests import golden

METRIC = 1e-5
ROUNDED = 1.001e-3  # to three decimals
RULES = {"max": "max", "T": "threshold", "rankdice": "rankdice"}
LOSSES = {"CrossEntropyLoss2d": "ce", "BCEWithLogitsLoss2d": "bce"}

METRICS = golden.load("rankdice/metrics")
TESTER = golden.load("rankdice/tester")
RECORDED = sorted({name.rpartition("__")[0] for name in METRICS if name.endswith("__miou")})


def counted(masks: np.ndarray, labels: np.ndarray) -> ImageCounts:
  """Of whole images."""
  labels = jnp.asarray(labels, jnp.int32)
  counts, _ = jax.jit(count_masks)(jnp.asarray(masks), labels, jnp.ones(labels.shape, bool))
  return jax.tree.map(np.asarray, counts)


@pytest.fixture(scope="module")
def counts():
  """By prediction."""
  classes = METRICS["logits"].shape[1]
  masks = {
    "max": METRICS["pred_max"][..., None] == np.arange(classes),
    "T": golden.nhwc(METRICS["pred_T"]) > 0,
  }
  return {name: counted(values, METRICS["target"]) for name, values in masks.items()}


@pytest.mark.parametrize("prediction", ["max", "T"])
def test_areas(prediction, counts):
  found, of = counts[prediction], lambda name: METRICS[f"{prediction}__int__area_{name}"]
  np.testing.assert_array_equal(found.hits, of("inter"))
  np.testing.assert_array_equal(found.truth, of("target"))
  np.testing.assert_array_equal(found.predicted + found.truth, of("sum"))
  np.testing.assert_array_equal(found.predicted + found.truth - found.hits, of("union"))
  of = lambda name: METRICS[f"{prediction}__onehot__area_{name}"]
  np.testing.assert_array_equal(found.predicted + found.truth, of("union"))


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_score(name, counts):
  prediction, target, interest, smooth = name.split("__")
  case = {key: METRICS[f"{name}__{key}"] for key in ("pixacc", "miou", "mdice", "iou", "dice")}
  of_sums = target == "onehot"  # there the original adds where it means the union
  smooth = float(smooth.removeprefix("smooth").replace("p", "."))
  found = image_scores(counts[prediction], smooth=smooth, iou_of_sums=of_sums)
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=METRIC)
  close(found.iou, case["iou"])
  close(found.dice, case["dice"])
  close(found.accuracy, case["pixacc"])
  classes = METRICS.get(interest, np.arange(found.iou.shape[1]))
  for i in range(len(found.iou)):
    means = image_means(type(found)(*(x[i : i + 1] for x in found)), classes)
    close([means.iou, means.dice], [case["miou"][i], case["mdice"][i]])


CASES = {
  f"{x['case']}-{x['predict']}-{x['loss']}": x for x in golden.load_json("rankdice/tester.json")
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_originals_test_loop(case):
  """Decision, scores and table of the images in batches with a label."""
  of = lambda name: TESTER[f"case{case['case']}__{name}"]
  logits, labels = jnp.asarray(golden.nhwc(TESTER["logits"])), TESTER["target"]
  is_binary = LOSSES[case["loss"]] == "bce"
  rule = Rule(RULES[case["predict"]], is_binary, case["temperature"], case["threshold"])
  masks = np.asarray(jax.jit(rule)(logits))
  counts = counted(masks, labels)
  kept = counts.labeled > 0
  check_masks(masks[kept], of("pred"), case["predict"] == "rankdice")

  classes = range(logits.shape[-1]) if case["CoI"] == "all" else case["CoI"]
  scored = image_scores(with_labels(counts), iou_of_sums=is_binary)
  found = image_means(scored, classes)
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=ROUNDED)
  close(found.accuracy, of("Pixel_Accuracy"))
  close([found.iou, found.dice], [of("Mean_IoU"), of("Mean_Dice")])
  close(found.class_iou, of("Class_IoU"))
  close(found.class_dice, of("Class_Dice"))
  check_loss(LOSSES[case["loss"]], logits, labels, of("test_loss"))


def check_masks(masks, recorded, cut_may_differ):
  classes = masks.shape[-1]
  if recorded.ndim == 3:
    np.testing.assert_array_equal(masks, recorded[..., None] == np.arange(classes))
    return
  differing = (masks != (golden.nhwc(recorded) > 0)).sum((1, 2))
  assert differing.max() <= (1 if cut_may_differ else 0)


def check_loss(name, logits, labels, recorded):
  """The mean over the batches with a label."""
  size, losses = int(TESTER["batch_size"]), []
  for start in range(0, len(labels), size):
    rows = slice(start, start + size)
    if (golden.known(labels[rows]) != 255).any():
      losses.append(make_loss(name)(logits[rows], jnp.asarray(labels[rows]), 0, 1))
  np.testing.assert_allclose(np.mean(losses), recorded, rtol=0, atol=1.001e-5)


def test_upstreams_scores_over_all_pixels():
  labels = golden.known(METRICS["target"])
  prediction, classes = METRICS["pred_max"], METRICS["logits"].shape[1]
  known = labels < classes
  table = np.zeros((classes, classes), np.int64)
  np.add.at(table, (labels[known], prediction[known]), 1)
  found = scores(table)
  assert (np.trace(table), table.sum()) == (
    METRICS["upstream_correct"],
    METRICS["upstream_labeled"],
  )
  np.testing.assert_allclose(found.iou, METRICS["upstream_iou"], atol=METRIC)
  np.testing.assert_allclose(found.miou, METRICS["upstream_miou"], atol=METRIC)
  np.testing.assert_allclose(found.accuracy, METRICS["upstream_pixacc"], atol=METRIC)


def test_pixels_without_a_label_by_protocol():
  """Image 0: class 1 is on two pixels, the mask on one of them and on one without a label."""
  labels = np.array([[[1, 1, 0, 255]], [[255, 255, 255, 255]]])
  masks = np.zeros((2, 1, 4, 3), bool)
  masks[0, 0, [0, 3], 1] = masks[1, ..., 2] = True
  counts = counted(masks, labels)
  paper, standard = (image_scores(counts, protocol) for protocol in ("paper", "standard"))
  np.testing.assert_allclose(paper.iou, [[0, 1 / 3, np.nan], [np.nan, np.nan, 0]], atol=METRIC)
  np.testing.assert_allclose(standard.iou, [[0, 1 / 2, np.nan], [np.nan] * 3], atol=METRIC)
  np.testing.assert_allclose(paper.accuracy[0], (3 + 2 + 4) / 12, atol=METRIC)
  np.testing.assert_allclose(standard.accuracy[0], (2 + 2 + 3) / 9, atol=METRIC)
  assert len(with_labels(counts).hits) == 1
  of_absent = image_means(paper, [2])
  assert of_absent.iou == 0 and np.isnan(image_means(standard, [2]).iou)
  with pytest.raises(ValueError, match=r"config\.evaluation\.protocol='papers'"):
    image_scores(counts, "papers")
