"""Layers, heads and trunks alone, as networks of their own."""

from typing import Any

from flax import nnx

from semiseg_jax.models.network import Network, Segmenter, Tree, split_network


def split(part: nnx.Module) -> tuple[Network, Tree, Tree]:
  """(what it is without its arrays, params, batch_stats)."""
  for name in ("align_corners", "late", "per_class", "growth"):
    setattr(part, name, getattr(Segmenter, name))
  variables, network = split_network(part)
  return network, *variables


def forward(network: Network, params: Tree, batch_stats: Tree, *args: Any) -> tuple[Any, Tree]:
  """(part(*args), batch_stats after it)."""
  return network.apply(params, batch_stats, lambda part: part(*args))
