"""A trained network as one file that runs without this package, on CPUs, GPUs and TPUs.

    import jax, pathlib
    program = jax.export.deserialize(bytearray(pathlib.Path("model.jaxexport").read_bytes()))
    label, confidence = jax.jit(program.call)(images)  # uint8 [B,H,W,3], RGB

gives label uint8 [B,H,W] and confidence float32 [B,H,W], the probability of the label.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from semiseg_jax.evaluation.decide import argmax_with_confidence
from semiseg_jax.evaluation.inference import whole_reflected
from semiseg_jax.files import write_json
from semiseg_jax.models.network import Network, Variables

PLATFORMS = ("cpu", "cuda", "tpu")


def export_network(
  network: Network, variables: Variables, size: tuple[int, int] | None = None
) -> export.Exported:
  """images uint8 [B,H,W,3] -> (label uint8 [B,H,W], confidence float32 [B,H,W]), weights inside.

  size: (H, W) of all images; None for any. B is free either way. Convolutions take the form that
  every platform compiles well, wherever this runs. Raises ValueError for a side below 1.
  """
  if size is not None and min(size) < 1:
    raise ValueError(f"size {size[0]}x{size[1]}: both sides must be at least 1")

  def program(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    label, confidence = argmax_with_confidence(whole_reflected(network, variables, images))
    return label.astype(jnp.uint8), confidence

  height, width = ("h", "w") if size is None else size
  shape = export.symbolic_shape(f"b, {height}, {width}, 3")
  images = jax.ShapeDtypeStruct(shape, jnp.uint8)
  return export.export(jax.jit(program), platforms=PLATFORMS)(images)


def write(
  path: pathlib.Path,
  network: Network,
  variables: Variables,
  about: dict[str, Any],
  size: tuple[int, int] | None = None,
) -> None:
  """The program, and beside it a JSON file with what its numbers mean."""
  exported = export_network(network, variables, size)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(exported.serialize())
  sides = "any" if size is None else f"{size[0]}x{size[1]}"
  described = {
    "input": f"images: uint8 [B,H,W,3], RGB; height x width: {sides}",
    "outputs": ["label: uint8 [B,H,W]", "confidence: float32 [B,H,W]"],
    "class_names": about["class_names"],
    "palette": about["palette"],
    "platforms": list(exported.platforms),
    "calling_convention_version": exported.calling_convention_version,
    "jax": jax.__version__,
  }
  write_json(path.with_name(path.name + ".json"), described)
