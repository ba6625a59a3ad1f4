"""Several processes as one run: how they meet, what they must agree on, and what if one is lost.

TPU pods, SLURM, Open MPI and Kubernetes tell their processes of each other; elsewhere the flags of
launch.py do. Each process feeds its own devices with its share of every batch.
"""

import collections
import contextlib
import importlib.util
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

RETRY = 75  # EX_TEMPFAIL: the exit code of a run that goes on when it is started again

# What srun and mpirun tell a process: how many there are, and which one it is.
_LAUNCHERS = (
  ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
  ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
  ("PMI_SIZE", "PMI_RANK"),
)
_Address = tuple[str | None, int | None, int | None]  # of process 0; how many; which one this is
_LOOK_EVERY = 1.0  # seconds between looks at who is there
_LEAVE = 10.0  # seconds that process 0 waits for the others to leave first
_OWN = ("data_dir", "root", "threads", "workers", "buffer")  # of config.data: change no batch
_STATUS = re.compile(r"(INTERNAL|UNKNOWN|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|"
                     r"FAILED_PRECONDITION): ")  # fmt: skip


@contextlib.contextmanager
def joined(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  timeout: int = 300,
) -> Iterator[None]:
  """This process as one of its run, from before any device is used; alone, if it is alone.

  coordinator: "HOST:PORT" of process 0, with num_processes and process_id; without them a cluster
  that has started several processes is asked. timeout: seconds to wait for the others, and until
  one that has fallen silent is given up: then this process ends with RETRY, whatever it waits for.
  Raises ValueError for flags that don't fit together, and if processes have unequal devices.
  """
  address = _given(coordinator, num_processes, process_id)
  if address[0] or in_cluster(os.environ):
    _connect(address, timeout)
  if jax.process_count() == 1:
    yield
    return
  watch = _Watch()
  try:
    check_devices()
    watch.hosts = [name.decode().strip() for name in _gathered(socket.gethostname().encode())]
    yield
    watch.may_leave.set()
    barrier("end")
  except Exception as error:
    if _STATUS.match(str(error)):  # most likely because another process is gone: say which
      watch.join(2 * timeout)
    raise
  finally:
    watch.may_leave.set()
    watch.join(_LEAVE)
    if jax.process_index() == 0:
      time.sleep(_LOOK_EVERY)  # the answer to the last goodbye is still on its way
    jax.distributed.shutdown()


def in_cluster(environment: Mapping[str, str]) -> bool:
  """Whether this is one of several processes that can find each other without being told."""
  if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
    return True
  if any(int(environment.get(size) or 1) > 1 for size, _ in _LAUNCHERS):
    return True
  return (
    importlib.util.find_spec("libtpu") is not None
    and any(map(os.path.exists, ("/dev/vfio", "/dev/accel0")))
    and "tpu" in (environment.get("JAX_PLATFORMS") or "tpu")
  )


def check_devices() -> None:
  """ValueError unless every process has the same number of devices."""
  counts = collections.Counter(device.process_index for device in jax.devices())
  if len(set(counts.values())) > 1:
    listed = ", ".join(f"process {process}: {count}" for process, count in sorted(counts.items()))
    raise ValueError(f"every process needs the same number of devices; there are {listed}")


def check_agreement(config: ConfigDict) -> None:
  """ValueError on all processes if their configs differ, naming who and what.

  Where the data lie and how they are read may differ.
  """
  if jax.process_count() == 1:
    return
  values = json.loads(config.to_json_best_effort())
  values["data"] = {key: value for key, value in values["data"].items() if key not in _OWN}
  texts = _gathered(json.dumps(values, sort_keys=True).encode())
  if others := [i for i, text in enumerate(texts) if text != texts[0]]:
    first, other = (json.loads(texts[i]) for i in (0, others[0]))
    changed = "; ".join(differences(first, other, "on process 0", "there"))
    raise ValueError(
      f"process {', '.join(map(str, others))} of {len(texts)} was started with another config than "
      f"process 0: {changed}. Start all with the same command"
    )


def differences(old: dict[str, Any], new: dict[str, Any], here: str, there: str) -> list[str]:
  """One line for every key of two nested dicts that has another value: "a.b: 1 HERE, 2 THERE"."""
  old, new = (flatten_dict(values, sep=".") for values in (old, new))
  keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
  return [f"{key}: {old.get(key)!r} {here}, {new.get(key)!r} {there}" for key in keys]


def barrier(name: str) -> None:
  """Waits until all processes are here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def from_first(text: str) -> str:
  """What process 0 says, on all of them."""
  if jax.process_count() == 1:
    return text
  return _gathered(text.encode())[0].decode().rstrip()


def _gathered(text: bytes) -> list[bytes]:
  """The texts of all processes."""
  size = int(multihost_utils.process_allgather(np.int32(len(text))).max())
  padded = np.frombuffer(text.ljust(size), np.uint8)
  return [row.tobytes() for row in multihost_utils.process_allgather(padded)]


def _given(coordinator: str | None, count: int | None, index: int | None) -> _Address:
  """What the flags say, all None if nothing; ValueError if only a part, or what can't be."""
  for size, rank in _LAUNCHERS:
    if coordinator and int(os.environ.get(size) or 1) > 1:
      count = int(os.environ[size]) if count is None else count
      index = int(os.environ[rank]) if index is None else index
  flags = {"--coordinator": coordinator, "--num_processes": count, "--process_id": index}
  missing = [name for name, value in flags.items() if value is None]
  if len(missing) == len(flags):
    return None, None, None
  if missing:
    raise ValueError(f"{', '.join(missing)} missing: several processes need {', '.join(flags)}")
  if not 0 <= index < count:
    raise ValueError(f"--process_id={index} is not one of 0 to {count - 1}")
  if not re.fullmatch(r".+:\d+", coordinator):
    raise ValueError(f"--coordinator={coordinator} should be HOST:PORT of process 0")
  return coordinator, count, index


def _connect(address: _Address, timeout: int) -> None:
  """`jax.distributed.initialize`, whose own end after a vain wait is an abort without a word."""
  late = threading.Timer(timeout, _waited_in_vain, (*address, timeout))
  late.daemon = True
  late.start()
  # so that a process that is lost ends the others by `_Watch`, with its name, not by an abort
  jax.config.update("jax_enable_recoverability", True)
  try:
    jax.distributed.initialize(
      *address, initialization_timeout=timeout + 60, heartbeat_timeout_seconds=timeout
    )
    jax.devices()  # those of all processes: waits for them too
  except ValueError as error:
    raise ValueError(
      f"several processes were started, but how they find each other is not known ({error}): give "
      "--coordinator=HOST:PORT of process 0"
    ) from error
  finally:
    late.cancel()


def _waited_in_vain(
  where: str | None, count: int | None, index: int | None, timeout: int
) -> NoReturn:
  why = "not all of them came: those that did say so too, so start those that don't"
  if index and not _listens(where):
    why = f"nothing listens at {where}: is process 0 running there, and not behind a firewall?"
  who = "this process" if index is None else f"process {index} of {count}"
  _end(f"{who} waited {timeout} s for the others; {why}")


def _listens(address: str) -> bool:
  host, _, port = address.rpartition(":")
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
  except OSError:
    return False
  return True


class _Watch(threading.Thread):
  """Looks who is there, and ends this process if one of the others is not.

  A collective whose peer is gone may wait for ever, so that nothing else could. Once the others
  `may_leave` it comes to its own end.
  """

  def __init__(self):
    super().__init__(daemon=True)
    self.hosts = ["an unknown host"] * jax.process_count()
    self.may_leave = threading.Event()
    self.start()

  def run(self) -> None:
    while not self.may_leave.wait(_LOOK_EVERY):
      try:
        _present()
      except multihost_utils.ProcessFailureError as error:
        lost = sorted({device.process_index for device in error.failed_devices})
        named = " and ".join(f"process {i} (on {self.hosts[i]})" for i in lost)
        self._end_unless_over(
          f"{named} of {len(self.hosts)} is gone: killed, crashed or cut off; its own output may "
          "say why. Start the same command on all hosts again: it goes on from the last checkpoint"
        )
      except Exception as error:
        self._end_unless_over(f"the connection to process 0 ({self.hosts[0]}) is lost: {error}")
    if jax.process_index() == 0:  # all are connected through it: it leaves last
      with contextlib.suppress(Exception):
        _wait_until_alone()

  def _end_unless_over(self, message: str) -> None:
    if not self.may_leave.wait(_LOOK_EVERY):  # at the end of a run all go, one after the other
      _end(message)


def _present() -> set[int]:
  """The processes that were there at the last look.

  Waits until all that are there look too; ProcessFailureError if one is gone since then.
  """
  with multihost_utils.live_devices(jax.devices()) as devices:
    return {device.process_index for device in devices}


def _wait_until_alone() -> None:
  others = True
  while others:
    with contextlib.suppress(multihost_utils.ProcessFailureError):
      others = _present() - {jax.process_index()}


def _end(message: str) -> NoReturn:
  """Ends this process from any thread, whatever the others do."""
  sys.stdout.flush()
  print(f"launch.py: {message}", file=sys.stderr, flush=True)
  os._exit(RETRY)
