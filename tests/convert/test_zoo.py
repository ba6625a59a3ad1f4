"""pytorch-segmentation's networks: the original's outputs, statistics and gradients, and back."""

import functools
import json
import re
import zlib

import jax
import numpy as np
import optax
import pytest

from semiseg_jax.convert import families
from semiseg_jax.convert.assign import counters_of, slots_of, tensor_at, tensors_of
from semiseg_jax.convert.weights import Weights, convert, describe
from semiseg_jax.labels import IGNORE
from tests import golden
from tests.convert.recorded import Case, assert_close, forward, json_files
from tests.convert.test_families import assert_statistics
from tests.golden.fill import fill

FOLDER = golden.FOLDER / "segmentation_zoo"
VECTORS = golden.vectors("segmentation_zoo/*", holding="output_class_mean")
TRAINED = golden.vectors("segmentation_zoo/train_*", holding="grad_norms")
QUICK = ("pspnet_resnet18", "gcn_resnet18_deconv", "enet")
AUX_WEIGHT = 0.4
LOSS = 1e-5
GRADIENT = 2e-3  # of norms: BatchNorms over a few values amplify what float32 rounds


def tensors_named(manifest: str) -> dict[str, np.ndarray]:
  """By rule; some are scaled, and of those that are one tensor in the original the last counts."""
  shapes = golden.load_json(f"segmentation_zoo/{manifest}.manifest.json")
  tensors = fill(shapes)
  if (path := FOLDER / f"{manifest}.scale.json").exists():
    tensors |= {k: tensors[k] * np.float32(x) for k, x in json.loads(path.read_text()).items()}
  if (path := FOLDER / f"{manifest}.tied.json").exists():
    for group in json.loads(path.read_text()):
      tensors |= dict.fromkeys(group, tensors[max(group, key=list(shapes).index)])
  return tensors


def case_named(manifest: str, **known) -> Case:
  tensors = tensors_named(manifest)
  family = families.detect(tensors)
  model = describe(family, tensors, {}) | {"normalization": "imagenet"} | known
  weights = Weights(tensors, family, model, {})
  return Case(weights, convert(weights))


def inputs(name: str) -> np.ndarray:
  height, width = map(int, re.fullmatch(r"x(\d+)x(\d+)", name).groups())
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  return rng.standard_normal((1, 3, height, width)).astype(np.float32)


def marked(names, quick) -> list:
  slow = lambda name: () if name in quick else (pytest.mark.slow,)
  return [pytest.param(name, marks=slow(name)) for name in names]


@pytest.mark.parametrize("name", marked(VECTORS, QUICK))
def test_outputs(name):
  """At the image's size; what hangs over it there is not compared, as ours is cut."""
  recorded = VECTORS[name]
  stride = re.search(r"_os(\d+)$", name)
  known = {"output_stride": int(stride[1])} if stride else {}
  manifest = str(recorded["manifest"]).removesuffix(".manifest.json")
  done = case_named(manifest, **known).done
  images = inputs(str(recorded["input_name"]))
  np.testing.assert_allclose(images.sum(), recorded["input_sum"], rtol=1e-4)
  outputs, _ = forward(done, images)
  logits = np.asarray(done.network.resize(outputs.logits, images.shape[2:]))
  step = int(recorded["stride"])
  height, width = -(-images.shape[2] // step), -(-images.shape[3] // step)
  assert_close(logits[:, ::step, ::step], golden.nhwc(recorded["output"])[:, :height, :width])


@pytest.mark.parametrize("manifest", marked(
  [path.partition("/")[2].removesuffix(".manifest.json")
   for path in json_files("segmentation_zoo/*.manifest") if "modules" not in path], QUICK
))  # fmt: skip
def test_every_tensor_has_its_place_and_goes_back(manifest):
  case = case_named(manifest)
  tensors, family, _, _ = case.weights
  assert not case.done.report.fresh
  assert {why for _, _, why in case.done.report.left} <= {"a counter", "a copy"}
  back = tensors_of(family, case.done.variables, counters_of(tensors))
  assert back.keys() == tensors.keys()
  for key, tensor in tensors.items():
    np.testing.assert_array_equal(back[key], tensor, err_msg=key)


@functools.partial(jax.jit, static_argnums=0)
def _train(network, params, batch_stats, images, labels):
  def loss_of(params):
    run = lambda module: module(images, train=True)
    outputs, after = network.apply(params, batch_stats, run)
    resized = [
      None if x is None else network.resize(x, labels.shape[1:])
      for x in (outputs.logits, outputs.aux_logits)
    ]
    weights = [weight for weight, x in zip((1, AUX_WEIGHT), resized, strict=True) if x is not None]
    losses = [cross_entropy(x, labels) for x in resized if x is not None]
    total = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    return total, (resized, after)

  return jax.value_and_grad(loss_of, has_aux=True)(params)


def cross_entropy(logits, labels):
  is_known = labels != IGNORE
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels * is_known)
  return (losses * is_known).sum() / is_known.sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_training(name):
  """Loss, outputs, statistics and the norm of every parameter's gradient."""
  recorded = TRAINED[name]
  case = case_named(name)
  images = golden.nhwc(recorded["input"])
  (loss, (outputs, after)), grads = _train(
    case.done.network, *case.done.variables, images, recorded["target"].astype(np.int32)
  )
  np.testing.assert_allclose(loss, recorded["loss"], rtol=LOSS)
  for ours, key in zip(outputs, ("output", "aux_output"), strict=True):
    if key in recorded:
      assert_close(ours[:, ::2, ::2], golden.nhwc(recorded[key]))
  assert_statistics(case, after, recorded, "after__")
  slots = slots_of(case.weights.family, case.done.variables)
  leaves = {("params", *(k.key for k in path)): x for path, x in jax.tree.leaves_with_path(grads)}
  norms = [np.linalg.norm(tensor_at(leaves, slots[str(k)])) for k in recorded["grad_names"]]
  largest = recorded["grad_norms"].max()
  np.testing.assert_allclose(norms, recorded["grad_norms"], rtol=GRADIENT, atol=1e-4 * largest)
