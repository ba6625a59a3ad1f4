"""A state dict into a network: what fits, what is left out, and what is refused."""

import re

import jax
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import assign, tensors_of
from semiseg_jax.convert.weights import Weights, completed, convert, describe
from semiseg_jax.models.network import Variables
from tests import golden
from tests.models.test_every_network import descriptions

TOY = {"trunk": {"name": "resnet18", "width": 4}, "normalization": "imagenet"}
SMALL = {**TOY, "decoder_dim": 8}
REPRESENTATION, SELECTORS = ({"heads": {head: 8}} for head in ("representation", "selectors"))
XCEPTION = {"name": "xception", "width": 4, "middle_blocks": 1}
DEEP_RESNET = {"name": "resnet50", "width": 4, "deep_stem": True}
DENSENET = {"name": "densenet121", "width": 4}
VGG = {"name": "vgg", "decoder_dim": 8, "normalization": "imagenet"}
MODELS = {
  "reco": {**SMALL, "name": "deeplabv3p", **REPRESENTATION},
  "dst_cbc": {**TOY, "name": "deeplabv2", "classifier_branches": 2},
  "advsemiseg": {**TOY, "name": "deeplabv2_coco"},
  "memory_bank": {**SMALL, "name": "deeplabv3plus", **SELECTORS},
  "c3_deeplabv2": {**TOY, "name": "deeplabv2_coco", "freeze_bn": "trunk"},
  "c3_deeplabv3plus": {**SMALL, "name": "deeplabv3plus_c3"},
  "c3_xception": {**SMALL, "name": "deeplabv3plus_c3", "trunk": XCEPTION},
  "torchvision_deeplabv3": {**SMALL, "name": "deeplabv3", "aux_head": True},
  "torchvision_resnet": {**TOY, "name": "resnet"},
  "torchvision_densenet": {**TOY, "name": "densenet", "trunk": DENSENET},
  "torchvision_vgg16": {**VGG, "trunk": {"name": "vgg16", "width": 4}},
  "torchvision_vgg16_bn": {**VGG, "trunk": {"name": "vgg16_bn", "width": 4}},
  "semiseg_jax": {**SMALL, "name": "deeplabv3", "aux_head": True, **REPRESENTATION},
}
SEGNET = {**TOY, "name": "segnet", "trunk": {"name": "vgg16_bn", "width": 4}}
VIT = {"name": "dinov2_small", "heads": 1, "depth": 4, "grid": 2}
DPT = {**SMALL, "name": "dpt", "trunk": VIT, "project_dims": (3, 4, 5, 6)}
ZOO = {
  "zoo_segnet": SEGNET,
  "zoo_segnet_tied": {**SEGNET, "tied": True},
  "zoo_segresnet": {**TOY, "name": "segresnet"},
  "zoo_upernet": {**TOY, "name": "upernet"},
}
RECORDED = {**ZOO, "unimatch_v2": DPT}  # compared with their originals' outputs elsewhere


def make(family: str, num_classes: int = 5, seed: int = 0, **model) -> tuple[dict, Variables]:
  """(description, variables) of a small network; every array other than in a fresh one."""
  base = TOY if "name" in model else (MODELS | RECORDED)[family]
  model = completed({**base, "num_classes": num_classes, **model})
  variables, _ = networks.build(model, seed=seed)
  rng = np.random.default_rng(seed)
  moved = lambda x: x + 0.05 * rng.standard_normal(x.shape, np.float32)
  return model, jax.tree.map(moved, variables)


def state_of(family: str, **kwargs) -> dict[str, np.ndarray]:
  return tensors_of(families.named(family), make(family, **kwargs)[1])


@pytest.mark.parametrize("name", MODELS | RECORDED)
def test_a_family_is_known_by_its_keys_and_describes_its_network(name):
  tensors, family = state_of(name), families.named(name)
  model, _ = make(name)
  assert families.detect(tensors) is family
  extra = {"about": {"model": model}} if name == "semiseg_jax" else {}
  found = completed(describe(family, tensors, extra))
  del found["normalization"]
  assert found == {key: model[key] for key in found}


@pytest.mark.parametrize("name", MODELS | RECORDED)
def test_there_and_back(name):
  model, variables = make(name)
  family = families.named(name)
  tensors = tensors_of(family, variables, {"nothing.num_batches_tracked": 3})
  done = convert(Weights(family.adapt(tensors), family, model, {}), seed=1)
  jax.tree.map(np.testing.assert_array_equal, done.variables, variables)
  assert done.report.fresh == [] and done.model == model


def test_counters_go_back():
  family = families.named("reco")
  tensors = tensors_of(family, make("reco")[1], {"resnet_bn1.num_batches_tracked": 3})
  counters = {key: int(x) for key, x in tensors.items() if key.endswith("num_batches_tracked")}
  assert counters.pop("resnet_bn1.num_batches_tracked") == 3 and set(counters.values()) == {0}


def test_a_trunk_starts_any_network_and_the_rest_stays_fresh():
  tensors = state_of("torchvision_resnet")
  for name in ("reco", "dst_cbc", "memory_bank", "torchvision_deeplabv3"):
    _, fresh = make(name, seed=1)
    variables, report = assign(families.named("torchvision_resnet"), tensors, fresh)
    np.testing.assert_array_equal(
      variables.params["trunk"]["conv1"]["kernel"], tensors["conv1.weight"].transpose(2, 3, 1, 0)
    )
    assert {key for key, *_ in report.left if "num_batches" not in key} == {"fc.weight", "fc.bias"}
    assert "trunk" not in {path.split(".")[0] for path, _ in report.fresh}
    for tree, expected in zip(variables, fresh, strict=True):
      for module in set(tree) - {"trunk"}:
        jax.tree.map(np.testing.assert_array_equal, tree[module], expected[module])


def test_an_encoder_starts_any_network_that_carries_it_and_goes_back():
  """mask_token may be missing, as in other libraries' files; --to_torch writes the trunk alone."""
  family = families.named("dinov2")
  for kind in ("", "_reg"):
    trunk = {**VIT, "name": VIT["name"] + kind}
    _, variables = make("unimatch_v2", **{**DPT, "trunk": trunk})
    tensors = tensors_of(family, variables)
    assert ("register_tokens" in tensors) == bool(kind)
    assert families.detect(tensors) is family
    model = describe(family, tensors, {})
    assert model["trunk"] == trunk and model["normalization"] == "imagenet"
    for name in ("dpt", "deeplabv3", "deeplabv3p", "deeplabv2"):
      _, fresh = make("unimatch_v2", seed=1, name=name, trunk=trunk, num_classes=3)
      found, report = assign(family, tensors, fresh)
      jax.tree.map(np.testing.assert_array_equal, found.params["trunk"], variables.params["trunk"])
      assert not report.left and not any(path.startswith("trunk") for path, _ in report.fresh)
  del tensors["mask_token"]
  assert families.detect(tensors) is family


@pytest.mark.parametrize("kind", ["small_reg", "giant"])
def test_encoders_as_transformers_has_them(kind):
  _, variables = make("unimatch_v2", **{**DPT, "trunk": {**VIT, "name": f"dinov2_{kind}"}})
  release, family = families.named("dinov2"), families.named("transformers_dinov2")
  ours, theirs = (tensors_of(x, variables) for x in (release, family))
  query, key, value = (
    theirs[f"encoder.layer.3.attention.attention.{part}.weight"]
    for part in ("query", "key", "value")
  )
  np.testing.assert_array_equal(ours["blocks.3.attn.qkv.weight"], np.vstack([query, key, value]))
  feed_forward = "weights_in" if kind == "giant" else "fc1"
  assert {
    "embeddings.position_embeddings", "embeddings.mask_token", "layernorm.bias",
    "embeddings.patch_embeddings.projection.weight", "encoder.layer.0.norm2.weight",
    "encoder.layer.3.attention.attention.key.bias", "encoder.layer.1.layer_scale2.lambda1",
    "encoder.layer.0.attention.output.dense.weight", f"encoder.layer.2.mlp.{feed_forward}.bias",
  } <= set(theirs)  # fmt: skip
  assert ("embeddings.register_tokens" in theirs) == kind.endswith("_reg")
  assert families.detect(theirs) is family
  back = family.adapt(theirs)
  assert back.keys() == ours.keys()
  jax.tree.map(np.testing.assert_array_equal, back, ours)
  assert describe(family, back, {}) == describe(release, ours, {})


def test_an_encoders_file_does_not_say_the_network():
  family = families.named("dinov2")
  tensors = tensors_of(family, make("unimatch_v2")[1])
  weights = Weights(tensors, family, describe(family, tensors, {}), {})
  with pytest.raises(ValueError, match=r"doesn't say the network's name.*give --model"):
    convert(weights)
  named = weights._replace(model=weights.model | {"name": "dpt"})
  with pytest.raises(ValueError, match=r"the network.s num_classes, .*give --num_classes"):
    convert(named)
  assert convert(named, num_classes=3).model["num_classes"] == 3
  with pytest.raises(ValueError, match=r"no place for .*trunk: --family=semiseg_jax has"):
    tensors_of(family, make("reco")[1])
  tensors["pos_embed"] = np.zeros((1, 5, 72), np.float32)
  with pytest.raises(ValueError, match="of 72 channels, not of heads of 64"):
    describe(family, tensors, {})


@pytest.mark.parametrize("size", ["small", "base", "large", "giant"])
def test_published_sizes_are_known_by_their_shapes(size):
  """Of UniMatch V2's files and of the encoder's own, whose keys lack a prefix."""
  shapes = golden.load_json(f"unimatch_v2/real_{size}.manifest.json")
  zeros = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
  inner = {k.removeprefix("backbone."): x for k, x in zeros.items() if k.startswith("backbone.")}
  for name, tensors in (("unimatch_v2", zeros), ("dinov2", inner)):
    assert families.detect(tensors).name == name
    found = describe(families.named(name), tensors, {})
    plain = networks.make({"name": "dpt", "trunk": {"name": f"dinov2_{size}"}})
    told = {key: found[key] for key in found.keys() & {"trunk", "decoder_dim", "project_dims"}}
    assert networks.make({"name": "dpt", **told}) == plain


STARTED = {
  "torchvision_resnet": {"name": "pspnet", "trunk": DEEP_RESNET},
  "torchvision_densenet": {"name": "pspnet", "trunk": DENSENET},
  "torchvision_vgg16": {"name": "fcn8", "trunk": MODELS["torchvision_vgg16"]["trunk"]},
  "torchvision_vgg16_bn": {"name": "segnet", "trunk": MODELS["torchvision_vgg16_bn"]["trunk"]},
}


@pytest.mark.parametrize("name", STARTED)
def test_every_kind_of_trunk_starts_from_imagenet(name):
  """All of it, and of FCN-8s what were linear layers; published DenseNets have dotted names."""
  model, family = STARTED[name], families.named(name)
  tensors = state_of(name, **{**MODELS[name], "trunk": model["trunk"]})
  dotted = {
    re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", key): tensors[key] for key in tensors
  }
  assert (dotted != tensors) == (name == "torchvision_densenet")
  assert families.detect(dotted) is family
  sizes = {"decoder_dim": 8} if model["name"] == "fcn8" else {}
  fresh, _ = networks.build({**model, **sizes, "num_classes": 5})
  _, report = assign(family, family.adapt(dotted), fresh)
  left = {key.rpartition(".")[0] for key, _, why in report.left if why != "a counter"}
  own = {"fc", "classifier", "classifier.0", "classifier.3", "classifier.6", "features.norm5"}
  assert left <= own - ({"classifier.0", "classifier.3"} if sizes else set())
  assert not any(path.startswith(("trunk", "conv6", "conv7")) for path, _ in report.fresh)


@pytest.mark.parametrize("model", descriptions().values(), ids=descriptions())
def test_every_network_goes_there_and_back_by_our_own_names(model):
  variables, other = (networks.build({**model, "num_classes": 5}, seed=seed)[0] for seed in (0, 1))
  tensors = tensors_of(families.OWN, variables)
  assert families.detect(tensors) is families.OWN
  back, report = assign(families.OWN, tensors, other)
  jax.tree.map(np.testing.assert_array_equal, back, variables)
  assert not report.fresh and {why for *_, why in report.left} <= {"a counter"}


def test_another_number_of_classes_is_refused_or_left_out():
  for name in {*MODELS, *RECORDED} - {"torchvision_resnet"}:
    family = families.named(name)
    tensors = family.adapt(state_of(name, num_classes=5))
    _, fresh = make(name, num_classes=3, seed=1)
    with pytest.raises(ValueError, match=r"classifier|layer5|last_conv.*reinit_classifier"):
      assign(family, tensors, fresh)
    variables, report = assign(family, tensors, fresh, reinit_classifier=True)
    kept = {path.split(".")[0] for path, _ in report.fresh}
    assert "classifier" in kept and kept <= {
      "classifier", "aux_classifier", "selectors", "memory_selectors"
    }  # fmt: skip
    whys = {key: why for key, _, why in report.left}
    assert "of another number of classes" in whys.values()
    for path, _ in report.fresh:  # a leaf is taken whole or not at all
      own, new = fresh.params, variables.params
      if path.rsplit(".", 1)[1] in ("mean", "var"):
        own, new = fresh.batch_stats, variables.batch_stats
      for part in path.split("."):
        own, new = own[part], new[part]
      np.testing.assert_array_equal(new, own)


def test_another_network_is_refused():
  tensors = state_of("reco")
  tensors["resnet_conv1.weight"] = np.zeros((8, 3, 7, 7), np.float32)
  _, fresh = make("reco")
  with pytest.raises(ValueError, match=r"resnet_conv1\.weight is \(8, 3, 7, 7\) there and \(4"):
    assign(families.named("reco"), tensors, fresh, reinit_classifier=True)
  with pytest.raises(ValueError, match="no tensor of this dst_cbc file has a place"):
    assign(families.named("dst_cbc"), {"x": np.zeros(3)}, fresh)


def test_a_selector_that_is_missing_is_named():
  tensors = state_of("memory_bank")
  del tensors["contrastive_class_selector_memory3.1.running_var"]
  _, fresh = make("memory_bank")
  with pytest.raises(ValueError, match=r"lacks contrastive_class_selector_memory3\.1\.running_var"):
    assign(families.named("memory_bank"), tensors, fresh)


def test_networks_go_back_only_where_they_have_a_place():
  _, variables = make("semiseg_jax")
  with pytest.raises(ValueError, match=r"no place for representation: --family=semiseg_jax has"):
    tensors_of(families.named("torchvision_deeplabv3"), variables)


def test_a_copy_is_one_only_if_it_is_equal():
  family, tensors = families.named("zoo_segnet_tied"), state_of("zoo_segnet_tied")
  _, fresh = make("zoo_segnet_tied", seed=1)
  whys = lambda: {key: why for key, _, why in assign(family, tensors, fresh)[1].left}
  assert set(whys().values()) == {"a counter", "a copy"}
  tensors["stage5_decoder.4.bias"] = tensors["stage5_decoder.4.bias"] + 1
  assert families.detect(tensors).name == "zoo_segnet"
  assert "one layer with stage1_encoder.1.bias here" in whys()["stage5_decoder.4.bias"]


def test_unknown_keys_and_families():
  with pytest.raises(ValueError, match=r"keys \(a, b, \.\.\.\) are those of no known family"):
    families.detect({"a": 1, "b": 2})
  with pytest.raises(ValueError, match="did you mean 'memory_bank'"):
    families.named("memorybank")
  tensors = state_of("reco")
  del tensors["resnet_layer4.1.bn2.weight"], tensors["classifier.3.bias"]
  with pytest.raises(ValueError, match=r"not the whole state dict.*classifier\.3\.bias"):
    describe(families.named("reco"), tensors, {})
  odd = {key: x for key, x in tensors.items() if "layer4.1" not in key}
  with pytest.raises(ValueError, match=r"a trunk with \[2, 2, 2, 1\] basic blocks is none of"):
    describe(families.named("reco"), odd, {})
  with pytest.raises(ValueError, match=r"doesn't say which network"):
    describe(families.OWN, state_of("semiseg_jax"), {})


@pytest.mark.parametrize(
  ("config", "expected"),
  [
    ({"dataset": "cityscapes", "training": {"pretraining": "COCO"}}, "cityscapes_bgr"),
    ({"dataset": "pascal_voc", "training": {"pretraining": "imagenet"}}, "pascal_rgb"),
  ],
)
def test_the_memory_banks_files_say_how_they_were_trained(config, expected):
  variables, _ = networks.build({**TOY, "name": "deeplabv2_coco", "num_classes": 7, **SELECTORS})
  family = families.named("memory_bank")
  tensors = tensors_of(family, variables)
  found = describe(family, tensors, {"config": config})
  layout = "coco" if config["training"]["pretraining"] == "COCO" else "imagenet"
  assert (found["name"], found["normalization"]) == (f"deeplabv2_{layout}", expected)
  unknown = describe(family, tensors, {})
  with pytest.raises(ValueError, match=r"doesn't say the network's name.*give --model"):
    convert(Weights(tensors, family, unknown, {}))
