"""What tells the data of one run from those of another, wherever they lie."""

import hashlib
from collections.abc import Mapping
from typing import Any

from semiseg_jax.input.sources import DatasetInfo, Source


def identity(info: DatasetInfo, sources: Mapping[str, Source]) -> dict[str, Any]:
  """As JSON: the classes in their order, how masks become them, and which images there are."""
  return {"class_names": list(info.class_names), **{n: _of(s) for n, s in sources.items()}}


def _of(source: Source) -> dict[str, Any]:
  digest = hashlib.sha256()
  for name, labeled in zip(source.ids, source.labeled, strict=True):
    digest.update(f"{name}\0{bool(labeled)}\n".encode("utf-8", "surrogateescape"))
  return {"images": len(source), "ids": digest.hexdigest()[:16], "masks": source.masks}
