"""A folder of images and masks on disk, and what may break in it."""

import pathlib

import numpy as np
from PIL import Image


def write_image(path: pathlib.Path, seed=0, size=(12, 16)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return pixels


def write_mask(path: pathlib.Path, ids, colors=()):
  path.parent.mkdir(parents=True, exist_ok=True)
  mask = Image.fromarray(np.asarray(ids, np.uint8))
  if colors:
    mask.putpalette(np.resize(colors, (256, 3)).astype(np.uint8).tobytes())
  mask.save(path)


def mask_of(seed, size=(12, 16), ids=(0, 1, 2, 255)):
  return np.random.default_rng(seed).choice(ids, size).astype(np.uint8)


def write_folder(root: pathlib.Path) -> None:
  """Twelve images, masks for all but the first two."""
  for i in range(12):
    write_image(root / "images" / f"scene{i}.png", i)
    if i > 1:
      write_mask(root / "masks" / f"scene{i}.png", mask_of(i))


def breakages(root):
  """{file stem: (break it, the error's message)}"""
  image, mask = (lambda n: root / "images" / f"{n}.png"), (lambda n: root / "masks" / f"{n}.png")
  cut = lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  return {
    "scene2": (lambda: cut(image("scene2")), r"scene2\.png: the image does not decode"),
    "scene3": (lambda: image("scene3").write_bytes(b""), r"scene3\.png: the image does not decode"),
    "scene4": (lambda: cut(mask("scene4")), r"masks/scene4\.png: the mask does not decode"),
    "scene5": (
      lambda: write_mask(mask("scene5"), mask_of(0, (10, 16))),
      r"12x16 in .*images/scene5\.png, 10x16 in .*masks/scene5\.png",
    ),
    "scene7": (
      lambda: write_mask(mask("scene7"), mask_of(0, ids=(0, 7))),
      r"masks/scene7\.png: label ids \[7\] are neither in 0\.\.2 nor the ignored id 255",
    ),
    "scene8": (
      lambda: write_image(mask("scene8")),
      r"scene8\.png: the mask has shape \(12, 16, 3\)",
    ),
  }
