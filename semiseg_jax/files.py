"""Small files: written whole or not at all, and named when they are damaged."""

import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from semiseg_jax.buckets import is_bucket


def write_json(path: pathlib.Path, value: Any) -> None:
  """Atomically: a reader sees the old file or the new one."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
  """Atomically."""
  write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Atomically."""
  if is_bucket(path):
    path.write_bytes(data)  # an object appears whole
    return
  part = path.with_name(path.name + ".part")
  part.write_bytes(data)
  part.replace(path)


def write_png(path: pathlib.Path, picture: np.ndarray) -> None:
  """A picture uint8 [H,W,3] or [H,W], into a folder that is made if need be."""
  path.parent.mkdir(parents=True, exist_ok=True)
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, "PNG")
  write_bytes(path, buffer.getvalue())


def read_json(path: pathlib.Path, remedy: str) -> dict[str, Any]:
  """The JSON object in a file.

  Raises ValueError with the file's name, what is wrong and the remedy for anything else.
  """
  try:
    value = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:  # no JSON, or no text
    raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
  if not isinstance(value, dict):
    raise ValueError(f"{path} holds a {type(value).__name__} where an object should be: {remedy}")
  return value
