"""Which pictures are meant, and under which names what is made of them is written."""

import glob
import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from semiseg_jax.input.decode import DataError, read_size
from semiseg_jax.input.files import IMAGE_SUFFIXES, is_own


class Picture(NamedTuple):
  """Where it is, and its outputs' path without suffix, below the folder of outputs."""

  path: pathlib.Path
  name: pathlib.Path


def find_pictures(images: str | pathlib.Path, out: pathlib.Path) -> list[Picture]:
  """One file, a folder's pictures, nested ones too, or those that match a pattern ("a/**/*.jpg").

  What lies in an `out` below that, or is not `is_own`, is left out. Names keep the folders below
  the one given, or below a pattern's last folder without a wildcard. Raises FileNotFoundError if
  there is no such file or folder, and ValueError if it holds, or is, no picture, or is `out`.
  """
  path = pathlib.Path(images)
  if path.is_dir():
    root, found, what = path, path.rglob("*"), f"{path} holds"
  elif path.exists():
    root, found, what = path.parent, [path], f"{path} is"
  elif glob.has_magic(str(path)):
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
    root, what = pathlib.Path(*fixed), f"{path} matches"
    found = map(pathlib.Path, glob.glob(str(path), recursive=True))
  else:
    raise FileNotFoundError(f"there is no folder or picture {path}")
  if root.resolve() == out.resolve():
    raise ValueError(f"the predictions would be written among the pictures in {root}")
  paths = [p for p in sorted(found) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
  if not path.is_file():  # one that is named may be called anything
    paths = [p for p in paths if is_own(p.relative_to(root))]
  if root.resolve() in out.resolve().parents:
    paths = [p for p in paths if out.resolve() not in p.resolve().parents]
  if not paths:
    raise ValueError(f"{what} no picture ({', '.join(IMAGE_SUFFIXES)})")
  return [Picture(p, p.relative_to(root).with_name(p.stem)) for p in paths]


def check_outputs(
  pictures: Sequence[Picture],
  out: pathlib.Path,
  endings: Sequence[str],
  others: Sequence[str] = (),
) -> None:
  """ValueError if two of out/NAME+ENDING, or of those and the others, are one file, or one of them
  is a picture."""
  written, inputs = dict.fromkeys(others), {picture.path.resolve() for picture in pictures}
  for picture, ending in itertools.product(pictures, endings):
    name = f"{picture.name}{ending}"
    if name in written:
      first = written[name] or "the legend"
      raise ValueError(f"{first} and {picture.path} would both be written to {name}: rename one")
    if (out / name).resolve() in inputs:
      raise ValueError(f"{out / name} would be written over a picture: name another --out")
    written[name] = picture.path


def check_readable(path: pathlib.Path) -> None:
  """DataError unless the file begins as a picture; its pixels are not looked at."""
  try:
    with open(path, "rb") as file:
      read_size(file, str(path))
  except OSError as error:
    raise DataError("unreadable", f"{path}: {error.strerror}") from error
