"""Collectives counted in programs: one written by hand, and compiled ones."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from semiseg_jax.planning.program import read
from semiseg_jax.planning.traffic import Collective, total_size, traffic
from semiseg_jax.runtime.mesh import make_mesh

PROGRAM = """\
HloModule jit_step, entry_computation_layout={()->f32[]}

%add.1 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%body.2 (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %g = bf16[4,8]{1,0} all-gather(%h), dimensions={0}
  ROOT %t = (s32[], bf16[4,8]) tuple(%i, %g)
}

%little (p: f32[2]) -> f32[2] {
  ROOT %r = f32[2]{0} all-reduce(%p), to_apply=%add.1
}

%much (p: f32[2]) -> f32[20] {
  ROOT %r = f32[20]{0} all-reduce(%p), to_apply=%add.1
}

ENTRY %main.3 () -> f32[] {
  %both = (f32[16]{0}, s32[2]{0}) all-reduce(%a, %b), replica_groups={}, to_apply=%add.1
  %start = (f32[3,5]{1,0}, f32[3,5]{1,0}, u32[], u32[]) collective-permute-start(%c)
  %done = f32[3,5]{1,0} collective-permute-done(%start)
  %gathered = ((f32[2]{0}, s8[4]{0}), (f32[16]{0}, s8[32]{0})) all-gather-start(%e, %f)
  %scattered = ((f32[8,4]{1,0}), f32[1,4]{1,0}) reduce-scatter-start(%e), to_apply=%add.1
  %w = (s32[], bf16[4,8]) while(%z), condition=%c.1, body=%body.2, \
backend_config={"known_trip_count":{"n":"5"}}
  %o = f32[2]{0} conditional(%i, %d, %d), branch_computations={%little, %much}
  ROOT %out = f32[] constant(0)
}
"""


def test_loops_choices_and_asynchronous_operations():
  found = traffic(read(PROGRAM))
  assert found == {
    "all-reduce": Collective(2, 16 * 4 + 2 * 4 + 20 * 4),
    "collective-permute": Collective(1, 15 * 4),
    "all-gather": Collective(5 + 1, 5 * 32 * 2 + 16 * 4 + 32),
    "reduce-scatter": Collective(1, 4 * 4),
  }
  assert total_size(found) == 152 + 60 + 320 + 96 + 16


def compiled_traffic(function, *shapes):
  mesh = make_mesh(jax.devices()[:4])
  mapped = jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
  arguments = [jnp.zeros(shape) for shape in shapes]
  return traffic(read(jax.jit(mapped).lower(*arguments).compile().as_text()))


def test_what_xla_compiles():
  reduced = compiled_traffic(lambda x: lax.psum(x, "data") + x, (8, 3))
  assert reduced == {"all-reduce": Collective(1, 2 * 3 * 4)}
  ring = [(i, (i + 1) % 4) for i in range(4)]
  passed = compiled_traffic(lambda x: lax.ppermute(x, "data", ring), (8, 3))
  assert passed == {"collective-permute": Collective(1, 2 * 3 * 4)}

  def repeated(x):
    return lax.fori_loop(0, 7, lambda _, x: lax.ppermute(x, "data", ring) * 2, x)

  assert compiled_traffic(repeated, (8, 3)) == {"collective-permute": Collective(7, 7 * 24)}
  assert compiled_traffic(lambda x: x * 2, (8, 3)) == {}
