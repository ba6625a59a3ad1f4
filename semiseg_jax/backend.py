"""The kind of device that a program is traced for."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLANNED: contextvars.ContextVar[str | None] = contextvars.ContextVar("planned", default=None)


def platform() -> str:
  """ "cpu", "gpu" or "tpu": that of the devices that a plan is for, or JAX's default."""
  return _PLANNED.get() or jax.default_backend()


def is_planned() -> bool:
  """Whether the devices are not there, so that nothing can be tried on them."""
  return _PLANNED.get() is not None


@contextlib.contextmanager
def planned_for(name: str) -> Iterator[None]:
  """What is traced inside is for that platform, whose devices are not there."""
  token = _PLANNED.set(name)
  try:
    yield
  finally:
    _PLANNED.reset(token)
