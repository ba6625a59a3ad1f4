"""Our own module paths, for networks that no original has. A .safetensors file says the rest."""

from semiseg_jax.convert.family import Family


def _has_trunk(tensors) -> bool:
  return any(key.startswith("trunk.") for key in tensors)


def _describe(shapes, extra) -> dict:
  try:
    return dict(extra["about"]["model"])
  except KeyError:
    raise ValueError(
      "the file has our names but doesn't say which network it is: convert the checkpoint that it "
      "was written from, or its .safetensors file"
    ) from None


FAMILY = Family(
  name="semiseg_jax",
  title="a network of semiseg_jax",
  rules=((r"(selectors|memory_selectors)\b", r"\1.{c}"), (r"", "")),
  signature=(),
  tells=_has_trunk,
  describe=_describe,
)
