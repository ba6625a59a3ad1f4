"""C3-SemiSeg's networks: the original's outputs, statistics, gradients, and what it trains."""

import itertools
import re

import jax
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.convert import apart, families, files
from semiseg_jax.convert.assign import leaves_of, slots_of, tensor_at, tensors_of
from semiseg_jax.convert.weights import convert, read_weights
from tests import golden
from tests.convert.recorded import assert_close, case_of, json_files, manifest_of, manifests
from tests.convert.test_assign import make
from tests.convert.test_families import assert_statistics

VECTORS = golden.vectors("c3_semiseg/*", holding="decoder_lowres*")
GRADIENTS = golden.vectors("c3_semiseg/*", holding="cotangent_f16")
NETWORKS = [m for m in manifests("c3_semiseg") if not m.endswith("/heads")]
QUICK = ("deeplabv3plus_resnet50_os8", "eval")  # 3 s; the others take 5 to 15 s each


def settings(name: str) -> dict[str, int]:
  stride = re.search(r"os(\d+)", name)
  return {"output_stride": int(stride[1])} if stride else {}


def sampled(key: str, values: np.ndarray, recorded: np.ndarray) -> np.ndarray:
  """What a vector keeps of values: every n-th row and column, or every n-th channel."""
  said = re.search(r"every(\d+)(?:st|nd|rd|th)(_channel)?", key)
  if said and not said[2]:
    return values[:, :: int(said[1]), :: int(said[1])]
  return values[..., :: values.shape[-1] // recorded.shape[-1]]


@pytest.mark.parametrize(
  ("name", "mode"),
  [
    pytest.param(*run, marks=() if run == QUICK else pytest.mark.slow)
    for run in ((name, mode) for name in VECTORS for mode in ("eval", "train"))
  ],
)
def test_recorded_outputs(name, mode):
  """Batch statistics everywhere in training, as the vectors have it; statistics move at each of
  their passes over the same images, of which they say the number.
  """
  recorded, train = VECTORS[name], mode == "train"
  case = case_of(manifest_of("c3_semiseg", name), freeze_bn="none", **settings(name))
  network = case.done.network
  levels = recorded["input_train_f16" if train else "input_f16"].astype(np.float32)

  @jax.jit
  def run(variables, images):
    """ASPP's output apart, so that its statistics move once."""
    features, after = network.apply(*variables, lambda module: module.encode(images, train))
    size = images.shape[1:3]
    aspp, _ = network.apply(
      *variables, lambda m: m.ASPP(features[-1], train) if hasattr(m, "ASPP") else None
    )
    outputs, after = network.decode(variables.params, after, features, size, train)
    return features, aspp, outputs.logits, network.resize(outputs.logits, size), after

  passes = {int(x) for key, x in recorded.items() if train and key.endswith("_batches_tracked")}
  variables = case.done.variables
  for _ in range(max(passes, default=1)):
    *outputs, after = run(variables, np.moveaxis(levels, 1, -1))
    variables = variables._replace(batch_stats=after)
  features, aspp, logits, resized = outputs
  found = {f"layer{i}": x for i, x in enumerate(features, start=1)} | {
    "backbone_out": features[-1], "low_level": features[0], "assp": aspp,
    "decoder_lowres": logits, "logits": resized,
  }  # fmt: skip
  checked = 0
  for key, value in recorded.items():
    if match := re.fullmatch(rf"(\w+?)(_every\w+)?__{mode}", key):
      expected = golden.nhwc(value)
      assert_close(sampled(key, found[match[1]], expected), expected)
      checked += 1
  assert checked >= 5
  if train:
    assert_statistics(case, after, recorded, "after_train__")


@pytest.mark.slow  # compiles a backward pass through a hundred layers
@pytest.mark.parametrize("name", GRADIENTS)
def test_recorded_gradients(name):
  """Of mean(logits * cotangent) with BatchNorms frozen in training."""
  recorded = {key: x.astype(np.float32) for key, x in GRADIENTS[name].items()}
  weights, done = case_of(manifest_of("c3_semiseg", name))
  network, (params, batch_stats) = done.network, done.variables

  @jax.jit
  @jax.value_and_grad
  def differentiate(params):
    images = np.moveaxis(recorded["input_f16"], 1, -1)
    outputs, _ = network.apply(params, batch_stats, lambda module: module(images, True))
    logits = network.resize(outputs.logits, images.shape[1:3])
    return (logits * golden.nhwc(recorded["cotangent_f16"])).mean()

  objective, grads = differentiate(params)
  np.testing.assert_allclose(objective, recorded["objective"], rtol=1e-4)
  found = tensors_of(weights.family, done.variables._replace(params=grads))
  for key, value in recorded.items():
    if match := re.fullmatch(r"grad__(.+?)(_every\w+)?", key):
      grad = found[match[1]]
      steps = zip(grad.shape, value.shape, strict=True)
      assert_close(grad[tuple(slice(None, None, n // m) for n, m in steps)], value)
  for i, is_none in enumerate(recorded["grad_is_none__decoder.conv2d_list"]):
    assert is_none == (("classifier", "conv2d_list", str(i), "kernel") in network.frozen)
    assert is_none == (not found[f"decoder.conv2d_list.{i}.weight"].any())


def fresh(manifest: str):
  """(family, slots, leaves, network) of a manifest, from scratch."""
  shapes = {key: tuple(x) for key, x in golden.load_json(f"{manifest}.manifest.json").items()}
  family = families.detect(shapes)
  variables, network = networks.build(family.describe(shapes, {}))
  return family, slots_of(family, variables), variables, network


@pytest.mark.parametrize("manifest", NETWORKS)
def test_every_tensor_has_one_place(manifest):
  _, slots, variables, _ = fresh(manifest)
  leaves = leaves_of(variables)
  assert {slot.path for slot in slots.values()} == set(leaves)
  expected = golden.load_json(f"{manifest}.manifest.json")
  found = {key: list(tensor_at(leaves, slot).shape) for key, slot in slots.items()}
  assert found == {k: x for k, x in expected.items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
  "path", [*json_files("c3_semiseg/*.param_groups"), *json_files("c3_semiseg/*.frozen")]
)
def test_it_trains_what_the_original_trains(path):
  """Frozen parameters, and which BatchNorms move in training with freeze_bn."""
  expected = golden.load_json(path)
  _, slots, variables, network = fresh(path.partition(".")[0])
  params = {key: slot.path[1:] for key, slot in slots.items() if slot.path[0] == "params"}
  frozen = {key for key, path in params.items() if path in network.frozen}
  decoder = set(expected.get("decoder_group", ()))
  assert frozen - decoder == set(expected["frozen_parameters"])
  if decoder:
    assert decoder == {key for key in params if key.startswith("decoder.")}
    trained = {key for key in params if key.startswith("body.")} - frozen
    assert trained == set(expected["backbone_group_multiplicity"])

  moved = {}

  def run(params, batch_stats, images):
    _, after = network(params, batch_stats, images, True)
    moved.update(leaves_moved(batch_stats, after))

  jax.eval_shape(run, *variables, np.zeros((2, 33, 33, 3)))
  for mode, moves in (("eval", False), ("train", True)):
    for norm in expected[f"norms_in_{mode}_mode_after_freeze_bn"]:
      assert moved[slots[f"{norm}.running_mean"].path[1:]] == moves, norm
  norms = sum(len(x) for key, x in expected.items() if key.startswith("norms_in"))
  assert norms == len(moved) // 2


def leaves_moved(before, after) -> dict[tuple[str, ...], bool]:
  """Whether each is another array than before, by its path."""
  moves = jax.tree.map(lambda old, new: old is not new, before, after)
  pairs = jax.tree.leaves_with_path(moves)
  return {tuple(entry.key for entry in path): moved for path, moved in pairs}


def test_imagenets_weights_go_where_the_suffix_rule_puts_them():
  """A model's tensor takes the loaded one whose name is the longest that its own name ends with."""

  def suffix_rule(model_keys, loaded):
    ends = {key: [k for k in loaded if key.endswith(k)] for key in model_keys}
    return {key: max(found, key=len, default=None) for key, found in ends.items()}

  case = golden.load_json("c3_semiseg/state_dict_matching.json")
  assert suffix_rule(case["model_keys"], case["keys_after_prefix_rule"]) == case["loaded_from"]

  _, ours, variables, _ = fresh("c3_semiseg/deeplabv2_resnet101")
  imagenet = slots_of(families.named("torchvision_resnet"), variables)
  places = {slot.path: key for key, slot in imagenet.items() if slot.path[1] == "trunk"}
  expected = suffix_rule(ours, [*places.values(), "fc.weight", "fc.bias"])
  assert {key: places.get(slot.path) for key, slot in ours.items()} == expected


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("head", ["projection_mlp", "projection_aspp"])
def test_heads_are_in_a_second_file(head, suffix, tmp_path):
  if suffix == "pth":
    pytest.importorskip("torch")
  model, variables = make("c3_deeplabv3plus", heads={head: 6}, **small("deeplabv3plus_c3"))
  family = families.named("c3_deeplabv3plus")
  path = tmp_path / f"best_model.{suffix}"
  apart.write(family, path, tensors_of(family, variables), {})
  beside = files.read(tmp_path / f"best_embedding_module.{suffix}").content
  assert {key.split(".")[0] for key in beside} <= {"emb_1", "decoder"}
  assert not any(key.startswith("emb") for key in files.read(path).content)
  done = convert(read_weights(str(path)))
  assert done.model == model
  jax.tree.map(np.testing.assert_array_equal, done.variables, variables)
  other = path.rename(tmp_path / f"checkpoint-epoch7.{suffix}")
  assert read_weights(str(other)).model["heads"] == {}
  assert apart.second(other).name == f"checkpoint-epoch7-embedding-module.{suffix}"


def small(name: str) -> dict:
  return {"name": name, "trunk": {"name": "resnet18", "width": 4}, "decoder_dim": 8,
          "normalization": "imagenet"}  # fmt: skip


def imagenet_xception(width: int = 4) -> dict[str, np.ndarray]:
  """A file's tensors of eight middle blocks: its keys and shapes, values by name."""
  shapes, middle = {}, 91 * width // 4

  def norm(key, n):
    names = ("weight", "bias", "running_mean", "running_var")
    shapes.update({f"{key}.{name}": (n,) for name in names})

  def separable(key, n, m):
    shapes.update({f"{key}.conv1.weight": (n, 1, 3, 3), f"{key}.pointwise.weight": (m, n)})

  def block(number, widths, starts=1, skip=True):
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
      separable(f"block{number}.rep.{3 * i + starts}", n, m)
      norm(f"block{number}.rep.{3 * i + starts + 1}", m)
    if skip:
      shapes[f"block{number}.skip.weight"] = (widths[-1], widths[0], 1, 1)
      norm(f"block{number}.skipbn", widths[-1])

  for i, (n, m) in enumerate(((3, width), (width, 2 * width)), start=1):
    shapes[f"conv{i}.weight"] = (m, n, 3, 3)
    norm(f"bn{i}", m)
  block(1, (2 * width, 4 * width, 4 * width), starts=0)
  block(2, (4 * width, 8 * width, 8 * width))
  block(3, (8 * width, middle, middle))
  for number in range(4, 12):
    block(number, (middle,) * 4, skip=False)
  block(12, (middle, middle, 32 * width))
  for i, (n, m) in enumerate(((32, 48), (48, 64)), start=3):
    separable(f"conv{i}", n * width, m * width)
    norm(f"bn{i}", m * width)
  shapes |= {"fc.weight": (10, 64 * width), "fc.bias": (10,)}
  rng = np.random.default_rng(0)
  return {key: rng.random(shape, np.float32) for key, shape in shapes.items()}


def test_imagenets_xception_starts_the_larger_one(tmp_path):
  tensors, path = imagenet_xception(), tmp_path / "xception.safetensors"
  files.write(path, tensors, {})
  with pytest.raises(ValueError, match=r"doesn't say the network's name.*give --model"):
    convert(read_weights(str(path)))
  done = convert(read_weights(str(path), name="deeplabv3plus_c3"), num_classes=5)
  trunk = done.variables.params["trunk"]
  of = lambda layer: layer["pointwise"]["kernel"][0, 0]
  matrix = lambda key: tensors[f"{key}.pointwise.weight"].T
  np.testing.assert_array_equal(of(trunk["conv5"]), matrix("conv4"))
  np.testing.assert_array_equal(of(trunk["conv3"]), matrix("conv3"))
  for ours, theirs in (("bn3", "bn3"), ("bn4", "bn3"), ("bn5", "bn4")):
    np.testing.assert_array_equal(trunk[ours]["scale"], tensors[f"{theirs}.weight"])
  for i in range(4, 21):
    theirs = matrix(f"block{12 if i == 20 else min(i, 11)}.rep.4")
    np.testing.assert_array_equal(of(trunk[f"block{i}"]["rep"]["4"]), theirs)
  assert {key for key, *_ in done.report.left} == {"fc.weight", "fc.bias"}
  alone = [name for name, _ in done.report.fresh if name.startswith("trunk.")]
  third = r"block(1\.rep\.[67]|(2|3|20)\.rep\.[78])\."
  assert all(re.match(rf"trunk\.(conv4\.|.*\.bn\.|{third})", name) for name in alone)
  assert {"trunk.conv4.pointwise.kernel", "trunk.block20.rep.8.scale"} <= set(alone)
