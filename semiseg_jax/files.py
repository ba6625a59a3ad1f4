"""Small files: written whole or not at all, and named when they are damaged."""

import json
import pathlib
from typing import Any


def write_json(path: pathlib.Path, value: Any) -> None:
  """Atomically: a reader sees the old file or the new one."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
  """Atomically."""
  part = path.with_name(path.name + ".part")
  part.write_text(text)
  part.replace(path)


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
