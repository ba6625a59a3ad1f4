"""The originals' weights, converted, give the originals' outputs and statistics, and go back.

Every vector of a network's outputs is taken with the manifest that its name begins with.
"""

import re

import jax
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import slots_of, tensors_of
from semiseg_jax.convert.weights import convert
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import supervised_loss
from semiseg_jax.models.resize import resize_bilinear
from tests import golden
from tests.convert.recorded import (
  Case,
  assert_close,
  case_of,
  forward,
  json_files,
  manifests,
  recorded_case,
  runs,
  slow_twin,
)

AGREEING = 0.999  # share of pixels whose largest logit is the same class
LOSS = 1e-5
BIAS_GRADIENT = 1e-4  # of the classifier's, of the largest value
# Noise of 1e-6 on the images moves the gradient of the first layers by 2 %.
FIRST_LAYERS = 5e-2

RECO = golden.vectors("reco/*", holding="rep_subset")
BANK = golden.vectors("memory_bank/*", holding="eval*.logits")
DST_CBC = golden.vectors("dst_cbc/*", holding="eval*_logits")
DST_CBC_TRAINED = [name for name, recorded in DST_CBC.items() if "train_loss" in recorded]
COCO = golden.vectors("dst_cbc/*", holding="advsemiseg_logits")


def assert_statistics(case: Case, batch_stats, recorded: dict[str, np.ndarray], prefix: str = ""):
  """Running statistics by the original's keys, behind a prefix."""
  slots = slots_of(case.weights.family, case.done.variables)
  checked = 0
  for key, value in recorded.items():
    if re.match(rf"{re.escape(prefix)}.+\.running_(mean|var)$", key):
      leaf = batch_stats
      for part in slots[key.removeprefix(prefix)].path[1:]:
        leaf = leaf[part]
      assert_close(leaf, value)
      checked += 1
  assert checked


def assert_agrees(logits, recorded: np.ndarray):
  assert (np.argmax(logits, -1) == recorded).mean() > AGREEING


def trained_too(name: str) -> tuple:
  """In the default suite a network that was recorded in both modes runs in training."""
  return (pytest.mark.slow,) if any(other.startswith(f"{name}_train") for other in RECO) else ()


@pytest.mark.parametrize("name", [pytest.param(name, marks=trained_too(name)) for name in RECO])
def test_reco(name):
  recorded = RECO[name]
  case = recorded_case("reco", name, recorded)
  train = bool(recorded["train_mode"])
  outputs, batch_stats = forward(case.done, recorded["input"], train)
  assert outputs.logits.shape[-1] == recorded["num_classes"]
  assert_close(outputs.logits, golden.nhwc(recorded["pred"]))
  some = outputs.embedding[..., :: recorded["rep_channel_stride"]]
  assert_close(some, golden.nhwc(recorded["rep_subset"]))
  batch, dim, height, width = recorded["rep_shape"]
  assert outputs.embedding.shape == (batch, height, width, dim)
  assert dim == recorded["output_dim"]
  assert_close(outputs.embedding.mean((0, 1, 2)), recorded["rep_channel_mean"])
  assert_close(outputs.embedding.std((0, 1, 2)), recorded["rep_channel_std"])
  large = case.done.network.resize(outputs.logits, recorded["input"].shape[2:])
  assert_agrees(large, recorded["argmax_large"])
  if train:
    assert_statistics(case, batch_stats, recorded, "after/")
  else:
    jax.tree.map(np.testing.assert_array_equal, batch_stats, case.done.variables.batch_stats)


@pytest.mark.slow  # the same weights and statistics are in training below
@pytest.mark.parametrize(("name", "run"), runs(BANK, r"(eval\d+)\.logits"))
def test_memory_bank_in_evaluation(name, run):
  """An even size tells the layouts apart; odd sides are trained on below."""
  recorded = BANK[name]
  case = recorded_case("memory_bank", name, recorded)
  outputs, _ = forward(case.done, recorded[f"{run}.input"])
  features = outputs.features
  assert_close(outputs.logits, golden.nhwc(recorded[f"{run}.logits"]))
  batch, channels, height, width = recorded[f"{run}.feature_shape"]
  assert features.shape == (batch, height, width, channels)
  stride = recorded[f"{run}.feature_channel_stride"]
  assert_close(features[..., ::stride], golden.nhwc(recorded[f"{run}.features_strided"]))
  assert_close(features.mean((0, 1, 2)), recorded[f"{run}.feature_channel_mean"])
  spread = np.array([features.mean(), features.std(ddof=1)])
  assert_close(spread, recorded[f"{run}.feature_mean_std"])


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_twin(name)) for name in BANK])
def test_memory_bank_in_training(name):
  recorded = BANK[name]
  case = recorded_case("memory_bank", name, recorded)
  outputs, batch_stats = forward(case.done, recorded["train.input"], train=True)
  assert_close(outputs.logits, golden.nhwc(recorded["train.logits"]))
  some = golden.nhwc(recorded["train.features_strided"])
  stride = outputs.features.shape[-1] // some.shape[-1]
  assert_close(outputs.features[..., ::stride], some)
  assert_statistics(case, batch_stats, recorded, "train.after.")
  for part in ("projection_head", "prediction_head", "selectors", "memory_selectors"):
    before = case.done.variables.batch_stats[part]
    jax.tree.map(np.testing.assert_array_equal, batch_stats[part], before)


@pytest.mark.parametrize(("name", "run"), runs(DST_CBC, r"(eval\d*)_logits"))
def test_dst_cbc_in_evaluation(name, run):
  recorded = DST_CBC[name]
  case = recorded_case("dst_cbc", name, recorded)
  images = recorded[f"{run}_input"]
  outputs, _ = forward(case.done, images)
  assert_close(outputs.logits, golden.nhwc(recorded[f"{run}_logits"]))
  assert (outputs.aux_logits is None) == ("aux_classifier.0.weight" not in case.weights.tensors)
  for key, value in recorded.items():
    if match := re.fullmatch(rf"{run}_features_every_(\d+).*", key):
      assert_close(outputs.features[..., :: int(match[1])], golden.nhwc(value))
  if f"{run}_argmax_fullsize" in recorded:  # its callers align corners, whatever the network
    large = resize_bilinear(outputs.logits, images.shape[2:], align_corners=True)
    assert_agrees(large, recorded[f"{run}_argmax_fullsize"])


@pytest.mark.slow  # compiles a backward pass through a hundred layers
@pytest.mark.parametrize("name", DST_CBC_TRAINED)
def test_dst_cbc_in_training(name):
  """Outputs, statistics, the loss of labels as they are, and its gradient."""
  recorded = DST_CBC[name]
  case = recorded_case("dst_cbc", name, recorded)
  network, variables = case.done.network, case.done.variables
  labels = golden.known(recorded["train_label"], IGNORE)

  def loss_of(params):
    done = case.done._replace(variables=variables._replace(params=params))
    outputs, batch_stats = forward(done, recorded["train_input"], train=True)
    logits = network.resize(outputs.logits, labels.shape[1:])
    return supervised_loss(logits, labels), (outputs.logits, batch_stats)

  differentiate = jax.value_and_grad(loss_of, has_aux=True)
  (loss, (logits, batch_stats)), grads = differentiate(variables.params)
  assert_close(logits, golden.nhwc(recorded["train_logits"]))
  assert_statistics(case, batch_stats, recorded)
  np.testing.assert_allclose(loss, recorded["train_loss"], rtol=LOSS)
  found = tensors_of(case.weights.family, variables._replace(params=grads))
  share = lambda a, b: np.abs(a - b).max() / np.abs(b).max()
  branches = [
    m[1] for key in recorded if (m := re.fullmatch(r"train_classifier(\d+)_has_grad", key))
  ]
  assert branches
  for branch in branches:
    has_gradient = bool(recorded[f"train_classifier{branch}_has_grad"])
    assert has_gradient != (("classifier", "conv2d_list", branch, "kernel") in network.frozen)
    if has_gradient:
      bias, expected = f"classifier.0.convs.{branch}.bias", f"train_classifier{branch}_bias_grad"
      assert share(found[bias], recorded[expected]) < BIAS_GRADIENT
  first = recorded["train_conv1_grad"]
  assert share(found["backbone.conv1.weight"][: len(first)], first) < FIRST_LAYERS
  assert share(found["backbone.bn1.weight"], recorded["train_bn1_weight_grad"]) < FIRST_LAYERS


def dst_cbc_manifest(family: str, keys: set[str] = frozenset()) -> str:
  """The first one of a family that has these keys."""
  for manifest in manifests("dst_cbc"):
    tensors = golden.load_json(f"{manifest}.manifest.json")
    if families.detect(tensors).name == family and keys <= set(tensors):
      return manifest
  raise AssertionError(f"no manifest of {family}")


@pytest.mark.slow
@pytest.mark.parametrize(
  ("layout", "key"),
  [("deeplabv2_coco", "advsemiseg_logits"), ("deeplabv2", "logits")],
  ids=["as the memory bank", "as DST-CBC"],
)
@pytest.mark.parametrize("name", COCO)
def test_the_coco_file_in_both_layouts(name, layout, key):
  case = case_of(dst_cbc_manifest("advsemiseg"), name=layout)
  outputs, _ = forward(case.done, COCO[name]["input"])
  assert_close(outputs.logits, golden.nhwc(COCO[name][key]))


@pytest.mark.parametrize(
  "manifest", [m for folder in ("reco", "memory_bank", "dst_cbc") for m in manifests(folder)]
)
def test_every_tensor_has_one_place_and_goes_back(manifest):
  """All leaves are assigned, all keys used but for the counters, and the way back is exact."""
  weights, done = case_of(manifest)
  counters = {key for key in weights.tensors if key.endswith("num_batches_tracked")}
  assert done.report.fresh == [] and {key for key, *_ in done.report.left} == counters
  assert {why for *_, why in done.report.left} <= {"a counter"}
  places = [path for _, path, _ in done.report.taken]
  assert len(set(places)) == len(places) == len(weights.tensors) - len(counters)
  back = tensors_of(weights.family, done.variables, dict.fromkeys(counters, 0))
  assert set(back) == set(weights.tensors)
  for key, tensor in weights.tensors.items():
    assert back[key].dtype == tensor.dtype
    np.testing.assert_array_equal(back[key], tensor)


@pytest.mark.parametrize("path", json_files("dst_cbc/*_conversion*"))
def test_dst_cbcs_own_converter_leaves_out_the_same(path):
  expected = golden.load_json(path)
  weights = case_of(dst_cbc_manifest("advsemiseg"), name="deeplabv2").weights
  skipped = {m[1]: x for key, x in expected.items()
             if (m := re.fullmatch(r"skipped_for_(\d+)_classes", key))}  # fmt: skip
  assert skipped
  for num_classes, keys in skipped.items():
    report = convert(weights, num_classes=int(num_classes), reinit_classifier=True).report
    assert sorted(key for key, *_ in report.left) == sorted(keys)


@pytest.mark.parametrize("path", json_files("dst_cbc/*_keys*"))
def test_dst_cbcs_own_converter_names_the_same_places(path):
  """AdvSemiSeg's keys and DST-CBC's for one array, as its converter pairs them."""
  pairs = golden.load_json(path)
  theirs, ours = (
    case_of(dst_cbc_manifest("advsemiseg", set(pairs))),
    case_of(dst_cbc_manifest("dst_cbc", set(pairs.values()))),
  )
  places = [slots_of(case.weights.family, case.done.variables) for case in (theirs, ours)]
  assert len(pairs) == len(theirs.weights.tensors)
  for key, other in pairs.items():
    assert places[0][key] == places[1][other]


def test_swapped_tensors_do_not_go_unseen():
  """Two arrays of one shape in each other's place: nothing but the outputs can tell."""
  name, recorded = next(iter(golden.vectors("dst_cbc/*", holding="eval_logits").items()))
  weights, _ = recorded_case("dst_cbc", name, recorded)
  one, other = (f"backbone.layer3.{i}.conv2.weight" for i in (2, 4))
  tensors = {**weights.tensors, one: weights.tensors[other], other: weights.tensors[one]}
  outputs, _ = forward(convert(weights._replace(tensors=tensors)), recorded["eval_input"])
  with pytest.raises(AssertionError):
    assert_close(outputs.logits, golden.nhwc(recorded["eval_logits"]))


def test_variables_are_trees_as_fresh_ones_are():
  done = case_of(manifests("dst_cbc")[-1]).done
  fresh, _ = networks.build(done.model, seed=1)
  shapes = lambda variables: jax.tree.map(lambda x: (x.shape, x.dtype), variables)
  assert shapes(done.variables) == shapes(fresh)
