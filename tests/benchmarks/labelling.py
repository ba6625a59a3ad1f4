"""Times a labelling pass beside prediction of the same images without writing: `... --help`.

Both read, pad and run the same batches through the same network and fetch label and confidence;
the pass also counts histograms, compresses and writes. In turns, the shortest of several counts.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from semiseg_jax import networks, transforms
from semiseg_jax.input.sources import Source
from semiseg_jax.training import labelling
from semiseg_jax.training.labelling import Labelling


class MadeUp(Source):
  """Smooth pictures, so that neighbouring pixels get one label, as in real ones."""

  def __init__(self, count: int, size: tuple[int, int]):
    self.ids = [f"image_{i}" for i in range(count)]
    self.labeled, self.sizes, self._size = np.zeros(count, bool), [size], size

  def __getitem__(self, index: int):
    coarse = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
    repeats = [-(-side // 8) for side in self._size]
    image = coarse.repeat(repeats[0], 0).repeat(repeats[1], 1)[: self._size[0], : self._size[1]]
    return {"image": image, "label": np.full(self._size, 255, np.uint8)}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, default=48)
  parser.add_argument("--size", type=int, nargs=2, default=(256, 512))
  parser.add_argument("--trunk", default="resnet18")
  parser.add_argument("--repeats", type=int, default=3)
  args = parser.parse_args()
  source = MadeUp(args.images, tuple(args.size))
  model = {
    "name": "deeplabv3p", "trunk": {"name": args.trunk}, "num_classes": 19, "heads": {},
    "normalization": "imagenet",
  }  # fmt: skip
  variables, network = networks.build(model)
  names = [f"class_{i}" for i in range(19)]
  whole = transforms.EVALUATION["whole"]()
  passes = labelling._Pass(pathlib.Path(), source, variables, network, names, Labelling(), whole)

  def predict() -> None:
    for rows in passes.chunks:
      for _ in passes.predicted(rows, None):
        pass

  def label() -> None:
    with tempfile.TemporaryDirectory() as folder:
      passes.directory = pathlib.Path(folder)
      passes.scale(0.2)

  times = {"prediction": [], "labelling": []}
  predict()  # compiles
  for _ in range(args.repeats):
    for name, function in (("prediction", predict), ("labelling", label)):
      start = time.perf_counter()
      function()
      times[name].append(time.perf_counter() - start)
  best = {name: min(values) for name, values in times.items()}
  print(f"{args.images} images of {args.size[0]}x{args.size[1]}, {args.trunk}")
  for name, seconds in best.items():
    print(f"{name}: {seconds:.2f} s, {args.images / seconds:.1f} images/s")
  print(f"labelling / prediction: {best['labelling'] / best['prediction']:.3f}")


if __name__ == "__main__":
  main()
