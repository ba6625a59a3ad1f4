"""How many images a second evaluation and prediction see, and what they wait for.

`python -m tests.benchmarks.inference --config=pascal_reco`, for the network of any config with
random weights, on made-up pictures of a dozen sizes: neither files nor weights are needed. Each is
run twice; the first time tells the programs that are compiled, the second the speed. "host": the
share of that time in which the device has nothing to do, as the same pictures take it when they
lie in memory and nothing is written.
"""

import argparse
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from semiseg_jax.evaluation.evaluate import evaluate, make_evaluate_step
from semiseg_jax.evaluation.listing import Picture
from semiseg_jax.evaluation.pictures import write_palette_png
from semiseg_jax.evaluation.predict import grouped, predict_each
from semiseg_jax.evaluation.predictor import Inference, Maps, Predictor, maps, read_inference
from semiseg_jax.input.pairs import Pairs
from semiseg_jax.input.pipeline import EvalBatches
from semiseg_jax.runtime.mesh import replicate, shard_batch
from semiseg_jax.training.evaluator import window_of
from semiseg_jax.training.setup import Run
from tests.benchmarks.made_up import config_of, run_of

_SIZES = 12
_COMPILED = "/jax/core/compile/backend_compile_duration"


def write_pictures(folder: pathlib.Path, count: int, crop: tuple[int, int], classes: int) -> None:
  """images/N.jpg and masks/N.png, each up to a third smaller than twice the crop."""
  rng = np.random.default_rng(0)
  for part in ("images", "masks"):
    (folder / part).mkdir()
  for number in range(count):
    share = 2 / 3 + (number % _SIZES) / _SIZES / 3
    height, width = (int(2 * side * share) for side in crop)
    coarse = rng.integers(0, classes, (-(-height // 16), -(-width // 16)))
    mask = coarse.repeat(16, 0).repeat(16, 1)[:height, :width].astype(np.uint8)
    noise = rng.integers(0, 64, (height, width, 3))
    image = (mask[..., None] * (190 // classes) + noise).astype(np.uint8)
    Image.fromarray(image).save(folder / f"images/{number:04}.jpg")
    Image.fromarray(mask).save(folder / f"masks/{number:04}.png")


def twice(function: Callable[[], object], compiled: list[float]) -> tuple[int, float]:
  """(programs compiled the first time, seconds of the second)."""
  before = len(compiled)
  jax.block_until_ready(function())
  count = len(compiled) - before
  start = time.perf_counter()
  jax.block_until_ready(function())
  return count, time.perf_counter() - start


def prediction(run: Run, folder: pathlib.Path, settings: Inference) -> tuple[Callable, Callable]:
  """What --mode=predict does with a folder; the same without files."""
  variables, palette = jax.device_put(run.start.variables), run.dataset.info.palette
  paths = sorted((folder / "images").iterdir())
  pictures = [np.asarray(Image.open(path)) for path in paths]
  predictor = Predictor(run.start.network, settings, maps)

  def write(picture: Picture, image: np.ndarray, found: Maps) -> None:
    write_palette_png(folder / f"{picture.name}.png", found.label, palette)

  def whole() -> None:
    predict_each(predictor, variables, [Picture(path, path.stem) for path in paths], write)

  def alone() -> list[Maps]:
    groups = grouped(enumerate(pictures), predictor.group, predictor.at_once)
    return [predictor(variables, [image for _, image in group]) for group in groups]

  return whole, alone


def evaluation(run: Run, folder: pathlib.Path) -> tuple[Callable, Callable]:
  """The scores of a folder; the same without files."""
  paths = (sorted((folder / part).iterdir()) for part in ("images", "masks"))
  config, classes = run.config, run.dataset.info.num_classes
  source = Pairs(*paths, classes, 255)
  size = tuple(2 * side for side in config.data.crop)
  batches = EvalBatches(source, batch=config.evaluation.batch, size=size)
  step = make_evaluate_step(run.start.network, classes, run.mesh, window_of(config))
  variables = replicate(run.start.variables, run.mesh)
  put = functools.partial(shard_batch, mesh=run.mesh)
  scores = lambda batches: evaluate(step, *variables, batches, put)
  return functools.partial(scores, batches), functools.partial(scores, list(batches))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="toy_reco", help="a file of configs/")
  parser.add_argument("--arg", help="behind the config's colon")
  parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
  parser.add_argument("--inference", default="", help="as launch.py has it")
  parser.add_argument("--images", type=int, default=48)
  args = parser.parse_args()
  jax.config.update("jax_enable_compilation_cache", False)
  compiled: list[float] = []
  listener = lambda event, seconds, **_: event == _COMPILED and compiled.append(seconds)
  jax.monitoring.register_event_duration_secs_listener(listener)
  config = config_of(args.config, args.arg, args.set)
  run = run_of(config)
  run.config.evaluation.batch = config.evaluation.batch
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_pictures(folder, args.images, config.data.crop, run.dataset.info.num_classes)
    settings = read_inference(args.inference, config.inference, "--inference")
    modes = {"evaluation": evaluation(run, folder), "prediction": prediction(run, folder, settings)}
    print(f"{args.config} on {jax.devices()[0].device_kind}, {args.images} pictures")
    for mode, (whole, alone) in modes.items():
      programs, took = twice(whole, compiled)
      _, least = twice(alone, compiled)
      print(
        f"{mode:<10} {args.images / took:8.1f} images/s, {programs} programs compiled, "
        f"host {100 * max(0, 1 - least / took):.0f} %",
        flush=True,
      )


if __name__ == "__main__":
  main()
