"""Time and memory of converting a DeepLab on ResNet-101, as a user runs it.

`python -m tests.benchmarks.convert`: writes a file of ReCo's DeepLabV3+ (59.5 million weights) and
converts it in a process of its own.
"""

import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from semiseg_jax import networks
from semiseg_jax.convert import families, files
from semiseg_jax.convert.assign import tensors_of

_MODEL = {
  "name": "deeplabv3p",
  "num_classes": 19,
  "heads": {"representation": 256},
  "output_stride": 16,
  "normalization": "imagenet",
}


def main() -> None:
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    variables, _ = networks.build(_MODEL)
    tensors = tensors_of(families.named("reco"), variables)
    for name in ("weights.pth", "weights.safetensors"):
      files.write(folder / name, tensors, {})
      size = (folder / name).stat().st_size / 2**20
      start = time.perf_counter()
      command = [
        sys.executable,
        "-m",
        "semiseg_jax",
        "convert",
        folder / name,
        "--out",
        folder / name[:9],
      ]
      subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
      seconds = time.perf_counter() - start
      # of the largest child so far; on Linux in KiB
      peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
      print(f"{name}: {size:.0f} MiB converted in {seconds:.1f} s, peak {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
  main()
