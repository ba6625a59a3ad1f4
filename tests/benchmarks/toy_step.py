"""Splits a training step into input, step and waiting: `python -m tests.benchmarks.toy_step`.

input: a batch from the pipeline alone. step: an update on a batch that is already there. loop: both
together as in a run, and the share of that time in which the loop waits for input. Any method of
the toy configs; the median over several rounds; compilation apart.
"""

import argparse
import time

import jax

from data import prepare
from semiseg_jax.input.build import open_data
from semiseg_jax.runtime.mesh import shard_batch
from semiseg_jax.training.setup import build
from semiseg_jax.training.streams import TrainStream
from tests.benchmarks.made_up import config_of
from tests.benchmarks.timing import milliseconds


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--method", default="reco", choices=["supervised", "mean_teacher", "reco"])
  parser.add_argument("--steps", type=int, default=20, help="of a round")
  args = parser.parse_args()
  config = config_of(f"toy_{args.method}", None)
  prepare.ensure(config.data.name)
  run = build(config, open_data(config))
  state = run.initial_state(run.mesh)
  stream = TrainStream(config, run.streams)
  batch = shard_batch(stream.next(), run.mesh)
  start = time.perf_counter()
  step = run.train_step().lower(state, batch).compile()
  compile_seconds = time.perf_counter() - start
  waited = 0.0

  def update(batch):
    nonlocal state
    state, metrics = step(state, batch)
    return metrics

  def loop():
    nonlocal waited
    start = time.perf_counter()
    rows = stream.next()
    waited += time.perf_counter() - start
    metrics = update(shard_batch(rows, run.mesh))
    return jax.block_until_ready(metrics)

  update(batch)
  step_ms = milliseconds(lambda: update(batch), args.steps)
  input_ms = milliseconds(stream.next, args.steps)
  loop_ms = milliseconds(loop, args.steps)
  wait_ms = 1000 * waited / (5 * args.steps)
  memory = step.memory_analysis()
  device, (height, width) = jax.devices()[0].device_kind, config.data.crop
  print(f"{args.method} on {device}, {stream.images_per_step} images of {height}x{width} a step")
  print(f"compile    {compile_seconds:6.1f} s")
  print(f"input      {input_ms:6.1f} ms, {config.data.threads} threads and nothing else to do")
  print(f"step       {step_ms:6.1f} ms")
  print(f"loop       {loop_ms:6.1f} ms, of which {wait_ms:.1f} ms wait for input")
  print(f"temporary  {memory.temp_size_in_bytes / 2**20:6.0f} MiB")
  stream.close()


if __name__ == "__main__":
  main()
