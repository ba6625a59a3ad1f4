"""DINOv2's encoder against recorded tokens and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import assign, leaves_of
from semiseg_jax.models import vit
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.trunk import Style
from semiseg_jax.models.vit import NAMES, ViTTrunk
from semiseg_jax.networks.dpt import DPT
from tests import golden
from tests.models import parts
from tests.models.unimatch import check_gradients, trunk_of, weights_of

TOKENS, POSITIONS, GRADIENT = 5e-5, 1e-4, 2e-4
ENCODERS = golden.vectors("unimatch_v2/vit_*")
WHOLE = {"small": 237, "base": 237, "large": 405, "giant": 629}  # tensors, of sizes as published


@pytest.mark.parametrize("name", ENCODERS)
def test_tokens_and_gradients(name):
  case, tensors = ENCODERS[name], weights_of(name)
  model = {"name": "deeplabv3", "num_classes": 2, "decoder_dim": 2, "output_stride": 16}
  variables, network = networks.build({**model, "trunk": trunk_of(case, tensors, "")})
  variables, report = assign(families.named("dinov2"), tensors, variables)
  assert not report.left and all(not path.startswith("trunk") for path, _ in report.fresh)
  trunk = {"trunk": variables.params["trunk"]}
  rest = {key: x for key, x in variables.params.items() if key != "trunk"}

  def scalar(trunk, image, cotangents):
    run = lambda module: module.encode(image, False)
    features, _ = network.apply({**trunk, **rest}, variables.batch_stats, run)
    flat = [x.reshape(*cotangent.shape) for x, cotangent in zip(features, cotangents, strict=True)]
    return sum((x * c).sum() for x, c in zip(flat, cotangents, strict=True)), flat

  function = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))
  for j in range(int(case["num_inputs"])):
    image = golden.nhwc(case[f"input{j}_q"]).astype(np.float32) / 32
    cotangents = [case[f"cotangent{j}.{k}_q"].astype(np.float32) / 32 for k in range(4)]
    (_, features), (grads, of_image) = function(trunk, image, cotangents)
    for k, found in enumerate(features):
      np.testing.assert_allclose(found, case[f"taps{j}.{k}"], rtol=0, atol=TOKENS)
    if f"grad{j}.input" in case:
      recorded = golden.nhwc(case[f"grad{j}.input"])
      bound = 3e-5 * abs(recorded).max()
      np.testing.assert_allclose(of_image, recorded, rtol=0, atol=bound)
    if f"grad{j}.pos_embed" in case:
      assert check_gradients(case, f"grad{j}.", grads, "dinov2", GRADIENT)


@golden.cases("unimatch_v2/pos_embed_*")
def test_positions(case):
  table = case["pos_embed_q"].astype(np.float32) / 32
  for name in (name for name in case if name.startswith("out_")):
    grid = tuple(map(int, name.removeprefix("out_").split("x")))
    function = functools.partial(vit.positions, grid=grid, resized=vit.resized_positions)
    found, back = jax.vjp(function, jnp.asarray(table))
    np.testing.assert_allclose(found, case[name], rtol=0, atol=POSITIONS, err_msg=name)
    if (key := name.replace("out", "grad")) in case:
      cotangent = case[f"{name.replace('out', 'cotangent')}_q"].astype(np.float32) / 32
      recorded = case[key]
      bound = GRADIENT * abs(recorded).max()
      np.testing.assert_allclose(back(jnp.asarray(cotangent))[0], recorded, rtol=0, atol=bound)


@pytest.mark.parametrize("resized", [vit.resized_positions, vit.antialiased_positions])
def test_positions_of_an_exported_program_are_those_of_its_image(resized):
  """The grid that they were learnt for among them, which is known only when it runs."""
  table = np.random.default_rng(0).standard_normal((1, 10, 4), np.float32)
  at = lambda image: vit.positions(table, image.shape, resized)
  shape = jax.export.symbolic_shape("h, w")
  program = jax.export.export(jax.jit(at))(jax.ShapeDtypeStruct(shape, np.float32))
  for grid in ((3, 3), (1, 9), (7, 3)):
    image = np.zeros(grid, np.float32)
    np.testing.assert_allclose(program.call(image), at(image), rtol=0, atol=1e-5)
  np.testing.assert_array_equal(program.call(np.zeros((3, 3), np.float32)), table)


@pytest.mark.parametrize("grid", [(4, 4), (9, 5), (3, 12), (16, 16)])
def test_positions_with_registers_are_those_of_pytorch(grid):
  """Resized to a size and not by a factor, with antialiasing where they become fewer."""
  torch = pytest.importorskip("torch")
  patches = np.random.default_rng(0).standard_normal((7, 7, 2), np.float32)
  theirs = torch.nn.functional.interpolate(
    torch.from_numpy(patches).permute(2, 0, 1)[None], grid, mode="bicubic", antialias=True
  )[0].permute(1, 2, 0)
  np.testing.assert_allclose(vit.antialiased_positions(patches, grid), theirs, atol=1e-5)


@golden.cases("unimatch_v2/side_rounding*")
def test_sides_are_rounded_to_whole_tokens(case):
  found = [vit.PATCH * vit.tokens_of(int(side)) for side in case["side"]]
  assert found == case["rounded"].tolist()


@pytest.mark.parametrize("size", WHOLE)
def test_sizes_are_the_published_ones(size):
  manifest = golden.load_json(f"unimatch_v2/real_{size}.manifest.json")
  module = {"name": "dpt", "num_classes": 21, "trunk": {"name": f"dinov2_{size}"}}
  description = networks.make({key: x for key, x in module.items() if key != "num_classes"})
  shapes = {key.removeprefix("backbone."): tuple(x) for key, x in manifest.items()}
  channels = description.trunk.heads * description.trunk.width
  assert shapes["cls_token"] == (1, 1, channels)
  assert f"blocks.{description.trunk.depth - 1}.ls2.gamma" in shapes
  assert f"blocks.{description.trunk.depth}.ls2.gamma" not in shapes
  assert shapes["head.scratch.layer1_rn.weight"][0] == description.decoder_dim
  dims = tuple(shapes[f"head.projects.{i}.weight"][0] for i in range(4))
  assert dims == description.project_dims and len(manifest) == WHOLE[size]
  known = families.named("unimatch_v2").describe({k: tuple(x) for k, x in manifest.items()}, {})
  assert known["trunk"]["name"] == f"dinov2_{size}" and known["trunk"]["grid"] == 37


def test_the_small_one_has_every_tensor_of_its_file():
  manifest = golden.load_json("unimatch_v2/real_small.manifest.json")
  variables, _ = networks.build({"name": "dpt", "num_classes": 21})
  shapes = {key: np.broadcast_to(np.float32(0), shape) for key, shape in manifest.items()}
  _, report = assign(families.named("unimatch_v2"), shapes, variables)
  assert len(report.taken) == len(manifest) and not report.left and not report.fresh


def test_registers_stand_between_the_class_and_the_image():
  make = lambda name: networks.build(
    {
      "name": "dpt", "num_classes": 2, "decoder_dim": 4, "project_dims": (4, 4, 4, 4),
      "trunk": {"name": name, "width": 4, "depth": 4, "heads": 2, "grid": 3},
    }
  )  # fmt: skip
  variables, network = make("dinov2_small_reg")
  assert variables.params["trunk"]["register_tokens"].shape == (1, 4, 8)
  plain, _ = make("dinov2_small")
  assert len(leaves_of(variables)) == len(leaves_of(plain)) + 1
  images = np.zeros((1, 42, 28, 3), np.uint8)
  outputs, _ = jax.eval_shape(functools.partial(network, train=False), *variables, images)
  assert outputs.logits.shape == (1, 24, 16, 2)


def test_names():
  assert {ViTTrunk(name).taps for name in NAMES} == {
    (2, 5, 8, 11), (4, 11, 17, 23), (9, 19, 29, 39)
  }  # fmt: skip
  assert ViTTrunk("dinov2_large", depth=8).taps == (1, 3, 5, 7)
  for taps in ((2, 1), (1, 1), (0, 4)):
    with pytest.raises(ValueError, match="are not some of 4 blocks, in their order"):
      ViTTrunk(depth=4, taps=taps)
  with pytest.raises(ValueError, match=r"trunk\.taps=\(0, 1, 2\) should be four numbers"):
    DPT(ViTTrunk(depth=4, taps=(0, 1, 2)))


@pytest.mark.parametrize("remat", ["elementwise", "blocks"])
def test_what_is_recomputed_changes_nothing(remat):
  images = np.random.default_rng(0).standard_normal((1, 28, 28, 3), np.float32)

  def gradient_of(remat):
    about = ViTTrunk("vit_tiny", width=4, depth=1, heads=2, taps=(0,), grid=2)
    maker = Maker(np.random.default_rng(0), remat=remat)
    network, params, stats = parts.split(about.build(14, Style(), maker))
    loss = lambda params: (parts.forward(network, params, stats, images, True)[0][0] ** 3).sum()
    return jax.grad(loss), params

  (plain, params), (found, _) = gradient_of("none"), gradient_of(remat)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, jax.jit(found)(params), jax.jit(plain)(params))
  text = lambda function: str(jax.make_jaxpr(function)(params))
  assert "remat" in text(found) and "remat" not in text(plain)
  products = [text(function).count("dot_general[") for function in (plain, found)]
  assert products[1] == products[0] + {"elementwise": 2, "blocks": 6}[remat]
