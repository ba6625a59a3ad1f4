"""Converts weights between PyTorch and this package.

    python -m semiseg_jax convert WEIGHTS.pth --out=DIR --verify    into a checkpoint of ours
    python -m semiseg_jax convert DIR --to_torch=FILE.pth           and back
    python -m semiseg_jax convert DIR --export=FILE.jaxexport       a program without this package
    python -m semiseg_jax convert DIR --hub=FOLDER                  a folder for a model hub
    python -m semiseg_jax convert FOLDER --push=ORG/REPO            and that, sent there

The weights are a .pth or .safetensors file, "hf://ORG/REPO/FILE", the working directory of a run or
a conversion, or a folder for a model hub, here or as "hf://ORG/REPO". Without anything to write, it
says what they are and what would be taken.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from rich.console import Console

from semiseg_jax.commands.flags import class_names, here
from semiseg_jax.convert import apart, checkpoint, export, families, hub, published
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.family import Family
from semiseg_jax.convert.report import named_origin, print_report, summary, write_report
from semiseg_jax.convert.verify import LIMITS, findings
from semiseg_jax.convert.weights import Converted, Weights, convert, describe, named
from semiseg_jax.input.datasets import open_dataset
from semiseg_jax.paths import local_path, user_path
from semiseg_jax.runtime.errors import naming
from semiseg_jax.values import Count, check

_KNOWN = ("name", "normalization", "classifier_branches")  # of the model: what a file may not say


def parser() -> argparse.ArgumentParser:
  summary, _, usage = __doc__.partition("\n\n")
  parser = argparse.ArgumentParser(
    prog="python -m semiseg_jax convert",
    description=f"{summary}\n\n{usage}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, path = parser.add_argument, here
  add(
    "weights",
    type=os.path.expanduser,
    help="a file of weights, hf://ORG/REPO/FILE, or a working directory",
  )
  add("--out", type=path, help="directory for the converted network, for launch.py to work with")
  add("--to_torch", type=path, metavar="FILE", help="state dict to write: .pth or .safetensors")
  add("--export", type=path, metavar="FILE", help="program to write, see docs/weights.md")
  add("--hub", type=path, metavar="FOLDER", help="folder to write: arrays, config.json and a card")
  add("--push", metavar="ORG/REPO", help="sends --hub's folder, or WEIGHTS if it is one")
  add("--verify", action="store_true", help="say what holds: the way back, the use of every tensor")
  add("--family", help=f"layout of the file, read or written: {', '.join(families.FAMILIES)}")
  add("--which", metavar="NAME", help="of several networks in the file, such as teacher")
  add("--model", dest="name", help="network, where the file leaves a choice (docs/weights.md)")
  add("--normalization", help="of the inputs, where the file doesn't say")
  add("--classifier_branches", type=int, help="DeepLabV2: how many of its branches are added up")
  add("--num_classes", type=int, help="of the converted network, with --reinit_classifier")
  add("--reinit_classifier", action="store_true", help="leave out a classifier of other classes")
  add("--dataset", help="prepared dataset whose class names and colours the network gets")
  add("--data_dir", help="of prepared datasets; default $SEMISEG_DATA or ~/semiseg_data")
  add("--variant", help="of the prepared dataset, where there are several")
  add(
    "--class_names", type=class_names, help="instead of --dataset: names with commas between them"
  )
  add("--size", help="--export: a fixed size of images, HEIGHTxWIDTH; default: any size")
  return parser


def main(argv: list[str]) -> int:
  """All that was asked for, in order; 1 if --verify finds something wrong."""
  args, console = parser().parse_args(argv), Console(highlight=False, markup=False, soft_wrap=True)
  is_whole = checkpoint.is_whole(args.weights)
  check_hub(args)
  check("--num_classes", args.num_classes, Count | None)
  known = {key: getattr(args, key) for key in _KNOWN}
  family = None if is_whole else args.family
  weights = checkpoint.open_weights(args.weights, family, args.which, **known)
  done = convert(weights, num_classes=args.num_classes, reinit_classifier=args.reinit_classifier)
  announce(args.weights, weights, done, console)
  about = names_and_colors(args, weights, done.model["num_classes"])
  if args.out:
    with naming(args.out):
      checkpoint.save_network(args.out, done.variables, done.model, about)
      write_report(done.report, args.out / "conversion.tsv")
    console.print(f"written to {args.out}: every tensor is listed in conversion.tsv")
  if args.to_torch:
    family = written_family(args, is_whole, weights, done)
    tensors = tensors_of(family, done.variables, about.get("counters"))
    with naming(args.to_torch):
      apart.write(family, args.to_torch, tensors, {**about, "model": done.model})
    console.print(f"{len(tensors)} tensors written to {args.to_torch} for {family.title}")
  if args.export:
    size = parse_size(args.size) if args.size else None
    with naming(args.export):
      export.write(args.export, done.network, done.variables, about, size=size)
    console.print(f"written to {args.export}")
  if args.hub:
    about, run = {**about, "model": done.model}, published.run_of(user_path(args.weights))
    with naming(args.hub):
      published.write(args.hub, done.variables, about, run, args.push)
    console.print(f"written to {args.hub}: README.md is its card, look it over")
  if args.push:
    folder = args.hub or local_path(args.weights)
    console.print(f"sent to {hub.push(folder, published.FILES, args.push)}")
  return verify(weights, done, about["class_names"], console) if args.verify else 0


def check_hub(args: argparse.Namespace) -> None:
  """Raises, before anything is read, for what --hub and --push can't be."""
  if args.push and not args.hub and not published.is_folder(user_path(args.weights)):
    raise ValueError("--push sends what --hub=FOLDER writes: give that, or such a folder alone")
  if args.push:
    hub.check_name(args.push)
  if args.hub:
    published.check_free(args.hub)


def announce(name: str, weights: Weights, done: Converted, console: Console) -> None:
  """What the weights are, and what becomes of them."""
  console.print(f"{named_origin(name, weights)}: {summary(done.report)}")
  console.print(", ".join(f"{key}={x}" for key, x in flatten_dict(done.model, sep=".").items()))
  origin = weights.about["origin"]
  if "sha256" in origin:
    beside = ", ".join(origin["beside"]) or "nothing"
    console.print(f"from {origin['file']}, sha256 {origin['sha256']}; beside the tensors: {beside}")
  print_report(done.report, console)


def names_and_colors(
  args: argparse.Namespace, weights: Weights, num_classes: int
) -> dict[str, Any]:
  """What the converted network says of itself: what the weights say, unless told otherwise."""
  names, palette = args.class_names, None
  if args.dataset:
    info = open_dataset(args.dataset, data_dir=args.data_dir, variant=args.variant).info
    names, palette = info.class_names, np.asarray(info.palette).tolist()
  return named(weights.about, num_classes, names, palette)


def written_family(
  args: argparse.Namespace, is_whole: bool, weights: Weights, done: Converted
) -> Family:
  """The layout of --to_torch: as told, as the file was, or the one that has this network."""
  if not is_whole:
    return weights.family
  if args.family:
    return families.named(args.family)
  for family in (x for x in families.FAMILIES.values() if not x.of_trunk):
    try:
      tensors = tensors_of(family, done.variables)
      found = describe(family, tensors, {"about": {"model": done.model}})
    except ValueError:
      continue
    telling = ("name", "classifier_branches", "freeze_bn", "tied")
    same = all(found.get(k) in (None, done.model.get(k)) for k in telling)
    if same and family.recognises(tensors):
      return family
  raise AssertionError("a network that not even our own layout holds")


def verify(weights: Weights, done: Converted, class_names: Sequence[str], console: Console) -> int:
  """Prints what was looked at; 1 if anything is wrong."""
  found = list(findings(weights, done, class_names))
  for held, text in found:
    console.print(f"{'ok' if held else 'wrong'}: {text}")
  console.print(LIMITS)
  return 0 if all(held for held, _ in found) else 1


def parse_size(text: str) -> tuple[int, int]:
  """(512, 1024) of "512x1024"; ValueError for anything else."""
  try:
    height, width = map(int, text.split("x"))
  except ValueError:
    raise ValueError(f"--size={text!r} should be HEIGHTxWIDTH, such as 512x1024") from None
  return height, width
