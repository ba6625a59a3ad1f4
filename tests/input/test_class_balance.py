"""Thresholds and labels against DST-CBC's and DMT's own, and histograms against exact values."""

import jax
import numpy as np
import pytest

from semiseg_jax.input import class_balance
from semiseg_jax.input.class_balance import divided, exact_thresholds, kept
from semiseg_jax.labels import IGNORE
from semiseg_jax.models.resize import resize_bilinear
from tests import golden

THRESHOLD = {"rtol": 0, "atol": 1e-6}


def likeliest(probs):
  """(label, confidence) of [C,H,W]."""
  return probs.argmax(0), probs.max(0)


def sampled(maps, stride):
  """What thresholds are taken from: every so many pixels of each image."""
  parts = [[x.reshape(-1)[::stride] for x in likeliest(probs)] for probs in maps]
  return [np.concatenate(part) for part in zip(*parts, strict=True)]


def decided(probs, thresholds):
  label, confidence = likeliest(probs)
  return np.where(kept(label, confidence, thresholds), label, IGNORE)


@golden.cases("dst_cbc/thresholds_scale*", holding="index_error")
def test_scale(case):
  images = [case[f"prob_{i}"] for i in range(len(case["heights"]))]
  classes = len(images[0])
  size = tuple(case["input_size"].tolist())
  logits = resize_bilinear(golden.nhwc(case["logits"]), size, align_corners=True)
  probs = np.moveaxis(np.asarray(jax.nn.softmax(logits)), -1, 1)
  for image, own, height, width in zip(images, probs, case["heights"], case["widths"], strict=True):
    np.testing.assert_allclose(own[:, :height, :width], image, rtol=0, atol=1e-6)
  for k, (ratio, stride) in enumerate(zip(case["ratio"], case["stride"], strict=True)):
    found = exact_thresholds(*sampled(images, stride), classes, float(ratio))
    if case["index_error"][k]:  # a class without a sampled pixel, at a ratio of 1
      assert (found == class_balance.KEEP_ALL).any()
      continue
    np.testing.assert_allclose(found, case["thresholds"][k], **THRESHOLD)
    labels = [decided(probs, found) for probs in images]
    for i, label in enumerate(labels):
      np.testing.assert_array_equal(label, case[f"pseudo_{i}"][k])
    share = sum((x != IGNORE).sum() for x in labels) / sum(x.size for x in labels)
    np.testing.assert_allclose(share, case["labeled_ratio"][k], rtol=1e-6)


@golden.cases("dst_cbc/thresholds_published*", holding="cbc_thresholds")
@pytest.mark.parametrize(("kind", "per_class"), [("cbc", True), ("c", False), ("ow", True)])
def test_published(case, kind, per_class):
  probs, batch = case["prob"], int(case["batch_size"])
  classes = probs.shape[1]
  batches = [probs[i : i + batch] for i in range(0, len(probs), batch)]
  for k, (ratio, stride) in enumerate(zip(case["ratio"], case["stride"], strict=True)):
    parts = [[x.reshape(-1)[::stride] for x in (b.argmax(1), b.max(1))] for b in batches]
    label, confidence = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = exact_thresholds(label, confidence, classes, float(ratio), "published", per_class)
    np.testing.assert_allclose(found, case[f"{kind}_thresholds"][k], **THRESHOLD)
    labels = np.asarray(divided(np.moveaxis(probs, 1, -1), found))
    np.testing.assert_array_equal(labels, case[f"{kind}_pseudo"][k])
    share = (labels != IGNORE).mean()
    np.testing.assert_allclose(share, case[f"{kind}_labeled_ratio"][k], rtol=1e-6)
  if kind == "ow":
    np.testing.assert_array_equal(probs.max(1), case["ow_confidence"])


@golden.cases("dst_cbc/pseudo_labels*", holding="thresholds")
def test_a_pixel_at_its_threshold_is_labelled(case):
  thresholds = np.float32(case["thresholds"])
  for i, (probs, height, width) in enumerate(
    zip(case["prob"], case["heights"], case["widths"], strict=True)
  ):
    cut = probs[:, :height, :width]
    label = decided(cut, thresholds)
    np.testing.assert_array_equal(label, case[f"scale_pseudo_{i}"])
    np.testing.assert_array_equal(label, case[f"dmt_npy_{i}"][..., 0])
    np.testing.assert_array_equal(cut.max(0), case[f"dmt_npy_{i}"][..., 1])
    published = divided(np.moveaxis(probs, 0, -1), thresholds)
    np.testing.assert_array_equal(published, case[f"published_pseudo_{i}"])


def made_up(count=20_000, classes=5):
  rng = np.random.default_rng(0)
  confidence = np.float32(1 - rng.uniform(0, 0.75, count) ** rng.integers(1, 30, count))
  return rng.integers(0, classes, count), confidence


def test_bins_are_in_the_order_of_confidence():
  _, confidence = made_up()
  confidence = np.sort(np.concatenate([confidence, np.float32([0, 0.5, 1])]))
  bins = class_balance.bins_of(confidence)
  assert (np.diff(bins) >= 0).all() and bins.min() >= 0
  assert bins[-1] == class_balance.NUM_BINS - 1 and len(np.unique(bins)) > 3000
  for index in np.unique(bins[confidence > 0.5]):  # below, the doubt itself is rounded
    least = class_balance.least_of_bin(int(index))
    np.testing.assert_array_equal(confidence >= least, bins >= index)


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("version", class_balance.VERSIONS)
@pytest.mark.parametrize("ratio", [0.2, 0.6000000000000001, 1.0])
def test_histogram_is_within_its_bin_and_sums_up(ratio, version, per_class):
  label, confidence = made_up()
  exact = exact_thresholds(label, confidence, 5, ratio, version, per_class)
  counts = class_balance.histogram(label, confidence, 5)
  found = class_balance.thresholds_of_histogram(counts, ratio, version, per_class)
  assert (found <= exact).all() and (1 - found <= (1 - exact) * 1.002 + 1e-7).all()
  halves = [class_balance.histogram(label[i::2], confidence[i::2], 5) for i in range(2)]
  np.testing.assert_array_equal(sum(halves), counts)


def test_a_class_that_is_never_predicted_keeps_all(caplog):
  label, confidence = np.array([0, 0, 2]), np.float32([0.9, 0.8, 0.7])
  counts = class_balance.histogram(label, confidence, 3)
  for version in class_balance.VERSIONS:
    for found in (
      exact_thresholds(label, confidence, 3, 0.5, version),
      class_balance.thresholds_of_histogram(counts, 0.5, version),
    ):
      assert found[1] == np.float32(1e-5) and found[0] <= np.float32(0.8)
      # of a single pixel half is none: all of the class, or its surest pixel
      assert found[2] == pytest.approx(1e-5 if version == "scale" else 0.7, abs=1e-3)
  assert "classes [1]" in caplog.text
