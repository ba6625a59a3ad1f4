"""The originals' weights, converted, give the originals' outputs and statistics, and go back.

One network for each manifest; its weights are made from their names.
"""

import functools
import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import pytest

from semiseg_jax.contract import Variables
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import slots_of, tensors_of
from semiseg_jax.convert.weights import Converted, Weights, convert, describe
from semiseg_jax.losses.pixel import supervised_loss
from semiseg_jax.models import networks
from semiseg_jax.models.resize import resize_bilinear
from tests import golden
from tests.golden.fill import fill

_GOLDEN = pathlib.Path(golden.__file__).parent
# Of the largest value: float32 through a hundred layers. Measured: at most 2e-6 in evaluation and
# 3e-5 in training, where the statistics of a few values amplify the error.
TOLERANCE = 1e-4


class Case(NamedTuple):
  """A family's weights as their own names have them, and as ours."""

  tensors: dict[str, np.ndarray]
  source: Weights
  done: Converted


@functools.lru_cache(maxsize=1)
def case_of(manifest: str, **known: str) -> Case:
  """The network of a manifest such as "reco/deeplabv2_19"."""
  tensors = fill(json.loads((_GOLDEN / f"{manifest}.manifest.json").read_text()))
  family = families.detect(tensors)
  model = describe(family, tensors, {}) | known
  source = Weights(tensors, family, model, {})
  return Case(tensors, source, convert(source))


def _memory_bank(name: str) -> Case:
  layout = name.partition("_resnet")[0]
  return case_of(f"memory_bank/{name}", name=layout, normalization="cityscapes_rgb")


def _dst_cbc(name: str) -> tuple[dict[str, np.ndarray], Case]:
  return golden.load(f"dst_cbc/{name}"), case_of(f"dst_cbc/{name}")


def _vectors(folder: str, pattern: str) -> list[str]:
  names = [path.name.removesuffix(".npz") for path in sorted((_GOLDEN / folder).glob(pattern))]
  assert names, pattern
  return names


def _manifests(folder: str) -> list[str]:
  paths = sorted((_GOLDEN / folder).glob("*.manifest.json"))
  return [f"{folder}/{path.name.removesuffix('.manifest.json')}" for path in paths]


@functools.partial(jax.jit, static_argnums=(0, 3))
def _run(graphdef, variables, images, train):
  return networks.forward(graphdef, *variables, images, train)


def forward(done: Converted, images: np.ndarray, train: bool = False):
  """(outputs, batch_stats) of images as the originals have them, [B,3,H,W]."""
  return _run(done.network.graphdef, done.variables, np.moveaxis(images, 1, -1), train)


def assert_close(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def assert_statistics(case: Case, batch_stats, expected: dict[str, np.ndarray]):
  """Running statistics by the original's keys."""
  slots = slots_of(case.source.family, case.done.variables)
  checked = 0
  for key, value in expected.items():
    if not key.endswith("num_batches_tracked"):
      leaf = batch_stats
      for part in slots[key].path[1:]:
        leaf = leaf[part]
      assert_close(leaf, value)
      checked += 1
  assert checked


@pytest.mark.parametrize("name", _vectors("reco", "deeplab*_*.npz"))
def test_reco(name):
  recorded = golden.load(f"reco/{name}")
  train = bool(recorded["train_mode"])
  case = case_of(f"reco/{name.removesuffix('_train')}")
  outputs, batch_stats = forward(case.done, recorded["input"], train)
  assert_close(outputs.logits, golden.nhwc(recorded["pred"]))
  assert_close(
    outputs.embedding[..., :: recorded["rep_channel_stride"]], golden.nhwc(recorded["rep_subset"])
  )
  batch, dim, height, width = recorded["rep_shape"]
  assert outputs.embedding.shape == (batch, height, width, dim)
  assert_close(outputs.embedding.mean((0, 1, 2)), recorded["rep_channel_mean"])
  assert_close(outputs.embedding.std((0, 1, 2)), recorded["rep_channel_std"])
  large = resize_bilinear(outputs.logits, recorded["input"].shape[2:], align_corners=True)
  assert (np.argmax(large, -1) == recorded["argmax_large"]).mean() > 0.999
  if train:
    after = {k.removeprefix("after/"): v for k, v in recorded.items() if k.startswith("after/")}
    assert_statistics(case, batch_stats, after)
  else:
    jax.tree.map(np.testing.assert_array_equal, batch_stats, case.done.variables.batch_stats)


_BANK = [  # the ImageNet layout differs from the COCO one in three places and is as large
  pytest.param(name, marks=pytest.mark.slow if name == "deeplabv2_imagenet" else ())
  for name in (m.removeprefix("memory_bank/") for m in _manifests("memory_bank"))
]


@pytest.mark.parametrize("name", _BANK)
def test_memory_bank_in_evaluation(name):
  recorded, case = golden.load(f"memory_bank/{name}"), _memory_bank(name)
  # the last size is even, which tells the layouts apart; odd sides are trained on below
  run = max(key.split(".")[0] for key in recorded if key.startswith("eval"))
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


@pytest.mark.parametrize("name", _BANK)
def test_memory_bank_in_training(name):
  recorded, case = golden.load(f"memory_bank/{name}"), _memory_bank(name)
  outputs, batch_stats = forward(case.done, recorded["train.input"], train=True)
  assert_close(outputs.logits, golden.nhwc(recorded["train.logits"]))
  stride = recorded["eval0.feature_channel_stride"]
  assert_close(outputs.features[..., ::stride], golden.nhwc(recorded["train.features_strided"]))
  prefix = "train.after."
  after = {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}
  assert_statistics(case, batch_stats, after)
  for part in ("projection_head", "prediction_head", "selectors", "memory_selectors"):
    before = case.done.variables.batch_stats[part]
    jax.tree.map(np.testing.assert_array_equal, batch_stats[part], before)


_DST = [m.removeprefix("dst_cbc/") for m in _manifests("dst_cbc") if "deeplabv2" in m]


@pytest.mark.parametrize("run", [pytest.param("eval0", marks=pytest.mark.slow), "eval1"])
@pytest.mark.parametrize("name", _DST)
def test_dst_cbc_in_evaluation(name, run):
  recorded, case = _dst_cbc(name)
  outputs, _ = forward(case.done, recorded[f"{run}_input"])
  assert_close(outputs.logits, golden.nhwc(recorded[f"{run}_logits"]))
  some = golden.nhwc(recorded[f"{run}_features_every_64th_channel"])
  assert_close(outputs.features[..., ::64], some)
  large = resize_bilinear(outputs.logits, recorded[f"{run}_input"].shape[2:], align_corners=True)
  assert (np.argmax(large, -1) == recorded[f"{run}_argmax_fullsize"]).mean() > 0.999


@pytest.mark.slow  # compiles a backward pass through a hundred layers
@pytest.mark.parametrize("name", _DST)
def test_dst_cbc_in_training(name):
  """Outputs, statistics, the loss of labels as they are, and its gradient."""
  recorded, case = _dst_cbc(name)
  images, labels = np.moveaxis(recorded["train_input"], 1, -1), recorded["train_label"]

  def loss_of(params):
    variables = case.done.variables._replace(params=params)
    outputs, batch_stats = _run(case.done.network.graphdef, variables, images, True)
    logits = resize_bilinear(outputs.logits, labels.shape[1:], align_corners=True)
    return supervised_loss(logits, labels.astype(np.int32)), (outputs.logits, batch_stats)

  differentiate = jax.value_and_grad(loss_of, has_aux=True)
  (loss, (logits, batch_stats)), grads = differentiate(case.done.variables.params)
  assert_close(logits, golden.nhwc(recorded["train_logits"]))
  after = {key: x for key, x in recorded.items() if key.startswith("backbone.")}
  assert_statistics(case, batch_stats, after)
  np.testing.assert_allclose(loss, recorded["train_loss"], rtol=1e-5)
  found = tensors_of(case.source.family, case.done.variables._replace(params=grads))
  # noise of 1e-6 on the images moves the gradient of the first layers by 2 %
  share = lambda a, b: np.abs(a - b).max() / np.abs(b).max()
  for branch in (0, 1):
    bias = f"classifier.0.convs.{branch}.bias"
    assert share(found[bias], recorded[f"train_classifier{branch}_bias_grad"]) < 1e-4
  first = recorded["train_conv1_grad"]
  assert share(found["backbone.conv1.weight"][: len(first)], first) < 5e-2
  assert share(found["backbone.bn1.weight"], recorded["train_bn1_weight_grad"]) < 5e-2
  for branch in range(4):
    has_gradient = bool(recorded[f"train_classifier{branch}_has_grad"])
    is_frozen = ("classifier", "conv2d_list", str(branch), "kernel") in case.done.network.frozen
    assert is_frozen != has_gradient


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "expected"),
  [("deeplabv2_coco", "advsemiseg_logits"), ("deeplabv2", "logits")],
  ids=["as the memory bank", "as DST-CBC"],
)
def test_the_coco_file_in_both_layouts(name, expected):
  recorded = golden.load("dst_cbc/coco_forward")
  case = case_of("dst_cbc/advsemiseg_coco", name=name)
  outputs, _ = forward(case.done, recorded["input"])
  assert_close(outputs.logits, golden.nhwc(recorded[expected]))


def test_deeplabv3():
  recorded, case = _dst_cbc("deeplabv3_resnet101")
  assert case.source.family.name == "torchvision_deeplabv3"
  outputs, _ = forward(case.done, recorded["eval_input"])
  assert_close(outputs.logits, golden.nhwc(recorded["eval_logits"]))
  assert outputs.aux_logits is None


@pytest.mark.parametrize(
  "manifest", [m for f in ("reco", "memory_bank", "dst_cbc") for m in _manifests(f)]
)
def test_every_tensor_has_one_place_and_goes_back(manifest):
  """All leaves are assigned, all keys used but for the counters, and the way back is exact."""
  known = (
    {"name": "deeplabv2_coco", "normalization": "coco"}
    if "memory_bank/deeplabv2" in manifest
    else {}
  )
  case = case_of(manifest, **known)
  report, family = case.done.report, case.source.family
  counters = {key for key in case.tensors if key.endswith("num_batches_tracked")}
  assert report.fresh == [] and {key for key, *_ in report.left} == counters
  assert {why for *_, why in report.left} <= {"a counter"}
  places = [path for _, path, _ in report.taken]
  assert len(set(places)) == len(places) == len(case.tensors) - len(counters)
  back = tensors_of(family, case.done.variables, dict.fromkeys(counters, 0))
  assert set(back) == set(case.tensors)
  for key, tensor in case.tensors.items():
    assert back[key].dtype == tensor.dtype
    np.testing.assert_array_equal(back[key], tensor)


def test_dst_cbcs_own_converter_leaves_out_the_same():
  expected = json.loads((_GOLDEN / "dst_cbc/coco_conversion.json").read_text())
  source = case_of("dst_cbc/advsemiseg_coco", name="deeplabv2").source
  report = convert(source, num_classes=19, reinit_classifier=True).report
  assert sorted(key for key, *_ in report.left) == sorted(expected["skipped_for_19_classes"])


def test_dst_cbcs_own_converter_names_the_same_places():
  """AdvSemiSeg's keys and DST-CBC's for one array, as its converter pairs them."""
  pairs = json.loads((_GOLDEN / "dst_cbc/coco_keys.json").read_text())
  theirs, ours = (case_of(f"dst_cbc/{name}") for name in ("advsemiseg_coco", "deeplabv2_resnet101"))
  places = [slots_of(case.source.family, case.done.variables) for case in (theirs, ours)]
  assert len(pairs) == 528
  for key, other in pairs.items():
    assert places[0][key] == places[1][other]


def test_swapped_tensors_do_not_go_unseen():
  """Two arrays of one shape in each other's place: nothing but the outputs can tell."""
  recorded, case = (
    golden.load("dst_cbc/deeplabv3_resnet101"),
    case_of("dst_cbc/deeplabv3_resnet101"),
  )
  one, other = (f"backbone.layer3.{i}.conv2.weight" for i in (4, 9))
  swapped = {**case.tensors, one: case.tensors[other], other: case.tensors[one]}
  outputs, _ = forward(convert(case.source._replace(tensors=swapped)), recorded["eval_input"])
  with pytest.raises(AssertionError):
    assert_close(outputs.logits, golden.nhwc(recorded["eval_logits"]))


def test_variables_are_trees_as_fresh_ones_are():
  case = case_of("dst_cbc/deeplabv3_resnet101")
  module = networks.create("deeplabv3", num_classes=21, backbone="resnet101", output_stride=8)
  fresh = Variables(*networks.split(module)[1:])
  shapes = lambda variables: jax.tree.map(lambda x: (x.shape, x.dtype), variables)
  assert shapes(case.done.variables) == shapes(fresh)
