"""DINOv2's encoders as transformers names them, such as those of `facebook/dinov2-base`.

Queries, keys and values are layers of their own there, and one here.
"""

from collections.abc import Mapping

import numpy as np

from semiseg_jax.convert.families import dinov2
from semiseg_jax.convert.family import Family

_NAMES = (  # parts of keys, there and in the release
  ("embeddings.cls_token", "cls_token"),
  ("embeddings.mask_token", "mask_token"),
  ("embeddings.register_tokens", "register_tokens"),
  ("embeddings.position_embeddings", "pos_embed"),
  ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
  ("encoder.layer.", "blocks."),
  ("attention.output.dense", "attn.proj"),
  ("layer_scale1.lambda1", "ls1.gamma"),
  ("layer_scale2.lambda1", "ls2.gamma"),
  ("mlp.weights_in", "mlp.w12"),
  ("mlp.weights_out", "mlp.w3"),
  ("layernorm.", "norm."),
)
_APART = [f"attention.attention.{part}." for part in ("query", "key", "value")]
_JOINED = "attn.qkv."


def _adapt(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  found = {}
  for key, x in tensors.items():
    if _APART[0] in key:
      parts = [tensors[key.replace(_APART[0], part)] for part in _APART]
      key, x = key.replace(_APART[0], _JOINED), np.concatenate(parts)
    elif any(part in key for part in _APART):
      continue
    for there, name in _NAMES:
      key = key.replace(there, name)
    found[key] = x
  return found


def _restore(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  found = {}
  for key, x in tensors.items():
    for there, name in _NAMES:
      key = key.replace(name, there)
    names = [key.replace(_JOINED, part) for part in _APART] if _JOINED in key else [key]
    found |= zip(names, np.split(x, len(names)), strict=True)
  return found


FAMILY = Family(
  name="transformers_dinov2",
  title="transformers' DINOv2 encoder",
  rules=dinov2.FAMILY.rules,
  signature=("embeddings.cls_token", "encoder.layer.0.layer_scale1.lambda1"),
  describe=dinov2.FAMILY.describe,
  of_trunk=True,
  lacks=dinov2.FAMILY.lacks,
  adapt=_adapt,
  restore=_restore,
)
