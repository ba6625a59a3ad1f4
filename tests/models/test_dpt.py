"""DPT's head and UniMatch V2's whole network against recorded logits and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax import networks
from semiseg_jax.augment import channels
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import assign
from semiseg_jax.evaluation.inference import whole
from semiseg_jax.evaluation.windows import windowed
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pixel import supervised_loss
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.models.resize import resize_bilinear
from tests import golden
from tests.models.unimatch import check_gradients, network_of, said, weights_of

HEAD, WHOLE, GRADIENT, LOSS = 5e-5, 2e-4, 2e-4, 5e-6
HEADS = golden.vectors("unimatch_v2/head_*")
DROPOUT = golden.vectors("unimatch_v2/dropout_b*")
MODELS = golden.vectors("unimatch_v2/model_*")
EVALUATIONS = golden.vectors("unimatch_v2/evaluate_*")


def head_of(name: str, case) -> tuple[Variables, Network]:
  """A network whose decoder has a vector's weights."""
  tensors = {f"head.{key.removeprefix('head.')}": x for key, x in weights_of(name).items()}
  dims = tuple(said(case, "project_widths").tolist())
  depth, channels = 4, tensors["head.projects.0.weight"].shape[1]
  model = {
    "name": "dpt",
    "trunk": {"name": "vit_tiny", "depth": depth, "heads": 1, "width": channels, "grid": 1},
    "decoder_dim": tensors["head.scratch.layer1_rn.weight"].shape[0],
    "project_dims": dims,
    "num_classes": tensors["head.scratch.output_conv.2.weight"].shape[0],
  }
  variables, network = networks.build(model)
  variables, report = assign(families.named("unimatch_v2"), tensors, variables)
  assert not report.left and all(path.startswith("trunk") for path, _ in report.fresh)
  return variables, network


def tokens_of(case, grid) -> list[jax.Array]:
  return [
    jnp.asarray(case[f"tokens.{k}_q"].astype(np.float32) / 32).reshape(-1, *grid, x.shape[-1])
    for k in range(4)
    for x in [case[f"tokens.{k}_q"]]
  ]


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
  case = HEADS[name]
  variables, network = head_of(name, case)
  grid = tuple(case["grid"].tolist())
  cotangent = golden.nhwc(case["cotangent_q"]).astype(np.float32) / 32

  def scalar(params, tokens):
    size = tuple(14 * n for n in grid)
    outputs, _ = network.decode(params, variables.batch_stats, tuple(tokens), size, True)
    return (outputs.logits * cotangent).sum(), outputs.logits

  function = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))
  (_, logits), (grads, of_tokens) = function(variables.params, tokens_of(case, grid))
  np.testing.assert_allclose(logits, golden.nhwc(case["logits"]), rtol=0, atol=HEAD)
  # the trunk's gradients are all zero; the vector has none of them
  params = {key: x for key, x in grads.items() if key != "trunk"}
  renamed = {f"grad.head.{k.removeprefix('grad.')}": x for k, x in case.items() if "grad." in k}
  assert check_gradients(renamed, "grad.", params, "unimatch_v2", GRADIENT)
  for k, found in enumerate(of_tokens):
    if (key := f"grad.tokens.{k}") in case:
      recorded = case[key].reshape(found.shape)
      bound = 3e-5 * abs(recorded).max()
      np.testing.assert_allclose(found, recorded, rtol=0, atol=bound)


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_between_encoder_and_decoder(name):
  case = DROPOUT[name]
  variables, network = head_of(name, case)
  grid = tuple(case["grid"].tolist())
  factors = {case["dropout_mask"].shape[1]: jnp.asarray(case["dropout_mask"])}
  cotangent = golden.nhwc(case["cotangent_q"]).astype(np.float32) / 32

  @jax.jit
  def run(tokens):
    features = channels.scaled(tuple(tokens), factors)
    size = tuple(14 * n for n in grid)
    outputs, _ = network.decode(*variables, features, size, True)
    return (outputs.logits * cotangent).sum(), outputs.logits

  grads, logits = jax.grad(run, has_aux=True)(tokens_of(case, grid))
  np.testing.assert_allclose(logits, golden.nhwc(case["logits"]), rtol=0, atol=HEAD)
  output = network.resize(logits, tuple(14 * n for n in grid))[:, ::5, ::3]
  np.testing.assert_allclose(output, golden.nhwc(case["output_sampled"]), rtol=0, atol=HEAD)
  for k in (0, 3):
    recorded = case[f"grad.tokens.{k}"].reshape(grads[k].shape)
    np.testing.assert_allclose(grads[k], recorded, rtol=0, atol=3e-5 * abs(recorded).max())


@pytest.mark.parametrize("name", MODELS)
def test_whole_networks(name):
  case, tensors = MODELS[name], weights_of(name)
  variables, network = network_of(case, tensors, int(case["num_classes"]))

  def loss(params, image, label):
    outputs, _ = network(params, variables.batch_stats, image, True)
    logits = network.resize(outputs.logits, label.shape[1:])
    return supervised_loss(logits, label), logits

  for j in range(sum(key.endswith("_level") for key in case)):
    has_grads = f"grad{j}.backbone.pos_embed" in case
    function = jax.jit(jax.value_and_grad(loss, has_aux=True) if has_grads else loss)
    image = golden.nhwc(case[f"image{j}_level"]).astype(np.float32)
    found = function(variables.params, image, jnp.int32(case[f"label{j}"]))
    (value, logits), grads = found if has_grads else (found, None)
    found = np.moveaxis(np.asarray(logits), -1, 1)
    if f"logits{j}_stride" in case:
      down, across = case[f"logits{j}_stride"]
      some, recorded = found[:, :, ::down, ::across], case[f"logits{j}_sampled"]
    else:
      some, recorded = found, case[f"logits{j}"]
    np.testing.assert_allclose(some, recorded, rtol=0, atol=WHOLE)
    axes = (0, 2, 3)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=WHOLE)
    close(found.mean(axes), case[f"logits{j}_channel_mean"])
    close(found.std(axes), case[f"logits{j}_channel_std"])
    np.testing.assert_allclose(value, case[f"loss{j}"], rtol=LOSS)
    if has_grads:
      assert check_gradients(case, f"grad{j}.", grads, "unimatch_v2", GRADIENT)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation(name):
  """Whole at the nearest multiples of 14, or through windows; every pixel is the original's."""
  case = EVALUATIONS[name]
  variables, network = network_of(case, weights_of(name), int(case["num_classes"]))
  window = int(case["crop_size"])
  is_sliding = str(case["mode"]) == "sliding_window"
  see = jax.jit(windowed if is_sliding else whole, static_argnums=(0, 3))
  shapes = [tuple(shape) for shape in case["model_input_shapes"]]
  for i in range(int(case["num_images"])):
    image = jnp.float32(golden.nhwc(case[f"image{i}_level"]))[None]
    if is_sliding:
      logits = see(network, variables, image, (window, window))
    else:
      logits = see(network, variables, image)
      assert tuple(14 * max((side + 7) // 14, 1) for side in image.shape[1:3]) == shapes[i]
    np.testing.assert_array_equal(logits[0].argmax(-1), case[f"pred{i}"])
    label, hits = case[f"label{i}"], []
    for k in range(int(case["num_classes"])):
      valid = label != IGNORE
      hits.append(((case[f"pred{i}"] == k) & (label == k) & valid).sum())
    np.testing.assert_array_equal(hits, case["intersection"][i])


def test_a_transposed_convolution_as_a_product():
  """Of a stride of its size: against the layer for any stride."""
  variables, network = networks.build(
    {
      "name": "dpt", "num_classes": 2, "decoder_dim": 4, "project_dims": (3, 5, 4, 4),
      "trunk": {"name": "vit_tiny", "width": 4, "depth": 4, "heads": 1, "grid": 1},
    }
  )  # fmt: skip
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 3))

  def both(module):
    layer = module.enlarge4
    return layer(x), super(type(layer), layer).__call__(x)

  (found, plain), _ = network.apply(*variables, both)
  assert found.shape == (2, 12, 16, 3)
  np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)


def test_logits_grow_to_the_tokens_size_before_anything_else():
  _, network = networks.build(
    {
      "name": "dpt", "num_classes": 2, "decoder_dim": 4, "project_dims": (4, 4, 4, 4),
      "trunk": {"name": "vit_tiny", "width": 4, "depth": 4, "heads": 1, "grid": 2},
    }
  )  # fmt: skip
  logits = jax.random.normal(jax.random.key(0), (1, 16, 24, 2))
  once = resize_bilinear(logits, (28, 42), align_corners=True)
  np.testing.assert_array_equal(network.resize(logits, (28, 42)), once)
  twice = resize_bilinear(once, (31, 40), align_corners=True)
  np.testing.assert_array_equal(network.resize(logits, (31, 40)), twice)
