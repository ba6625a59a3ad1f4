"""64 virtual devices: every method's step runs there, and sends what it is said to send."""

import json
import math

import pytest

from tests.benchmarks.scaling import VARIANTS
from tests.processes import clean_environment, finish, start


def kib(rows, variant: str, devices: int) -> float:
  (row,) = (r for r in rows if (r["variant"], r["devices"]) == (variant, devices))
  return sum(size for _, size in row["traffic"].values()) / 1024


@pytest.mark.slow
def test_every_method_on_64_devices(tmp_path):
  command = ["-m", "tests.benchmarks.scaling", "--devices", "8", "64", "--run", "--json"]
  out, _ = finish(start(clean_environment(tmp_path), *command), seconds=1200)
  rows = [json.loads(line) for line in out.splitlines()]
  assert {row["variant"] for row in rows} == set(VARIANTS)
  assert all(row["step"] == 1 and math.isfinite(row["loss"]) for row in rows)
  for variant in ("supervised", "mean_teacher, ClassMix", "reco, scope=device"):
    assert kib(rows, variant, 64) == kib(rows, variant, 8)
  for devices in (8, 64):  # slots alone cost nothing
    few, many = (kib(rows, f"memory_bank, {n} slots", devices) for n in ("64", "4,096"))
    assert few == many
