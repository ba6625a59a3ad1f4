"""UniMatch V2's recorded networks, rebuilt from what a vector says of them."""

from typing import Any

import numpy as np

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import assign, leaves_of, slots_of, tensor_at
from semiseg_jax.models.network import Network, Variables
from tests import golden
from tests.golden.fill import fill

Recorded = dict[str, np.ndarray]


def weights_of(name: str) -> dict[str, np.ndarray]:
  """The state dict of a vector's manifest, with the README's two changes."""
  tensors = fill(golden.load_json(f"unimatch_v2/{name}.manifest.json"))
  for key in tensors:
    if key.endswith(".gamma"):
      tensors[key] = tensors[key] + np.float32(1)
    if key.endswith("output_conv.2.weight"):
      tensors[key] = tensors[key] * np.float32(0.25)
  return tensors


def said(case: Recorded, name: str) -> np.ndarray:
  """What a vector says of its network."""
  return case.get(f"model.{name}", case.get(name))


def trunk_of(case: Recorded, tensors: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
  """config.model.trunk; prefix: of what the vector says of the encoder, and of its tensors."""
  of = lambda name: said(case, name)
  heads, depth, grid = (int(of(name)) for name in ("num_heads", "depth", "native_grid"))
  width = tensors[f"{prefix}cls_token"].shape[-1] // heads
  name = "dinov2_giant" if bool(of("swiglu")) else "dinov2_small"
  taps = tuple(of("taps").tolist())
  return {"name": name, "width": width, "depth": depth, "heads": heads, "taps": taps, "grid": grid}


def network_of(
  case: Recorded, tensors: dict[str, np.ndarray], num_classes: int
) -> tuple[Variables, Network]:
  """The whole network with these weights, all of which it has a place for."""
  model = {
    "name": "dpt",
    "trunk": trunk_of(case, tensors, "backbone."),
    "decoder_dim": int(said(case, "head_width")),
    "project_dims": tuple(said(case, "project_widths").tolist()),
    "num_classes": num_classes,
  }
  variables, network = networks.build(model)
  variables, report = assign(families.named("unimatch_v2"), tensors, variables)
  assert not report.left and not report.fresh
  return variables, network


def check_gradients(case: Recorded, prefix: str, params: Any, family: str, share: float) -> int:
  """Every recorded gradient of a parameter, to a share of its largest value; how many there are."""
  variables = Variables(params, {})
  slots, leaves = slots_of(families.named(family), variables), leaves_of(variables)
  checked = 0
  for name in case:
    key = name.removeprefix(prefix)
    if not name.startswith(prefix) or key not in slots:
      continue
    found, recorded = tensor_at(leaves, slots[key]), case[name]
    if f"{name}.shape" in case:
      assert found.shape == tuple(case[f"{name}.shape"])
      found = found.ravel()[:: stride_of(found.size, 600)]
    bound = share * max(abs(recorded).max(), 1e-6)
    np.testing.assert_allclose(found, recorded, rtol=0, atol=bound, err_msg=name)
    checked += 1
  return checked


def stride_of(size: int, most: int) -> int:
  """1 up to so many entries, else the smallest odd number that leaves at most about so many."""
  return 1 if size <= most else -(-size // most) | 1
