"""Kernels counted in programs: one written by hand, and one compiled here."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from semiseg_jax.models.resize import resize_bilinear
from semiseg_jax.planning import program
from semiseg_jax.planning.kernels import kernels
from semiseg_jax.planning.program import read
from tests.benchmarks.profile import profiled

OURS = program._PACKAGE
TABLES = f"""\
FileNames
1 "/home/me/train.py"
2 "{OURS}models/layers.py"
3 "/lib/optax/update.py"

FunctionNames
1 "step"

FileLocations
1 {{file_name_id=1 function_name_id=1 line=10 end_line=10 column=2 end_column=3}}
2 {{file_name_id=2 function_name_id=1 line=20 end_line=20 column=2 end_column=3}}
3 {{file_name_id=3 function_name_id=1 line=30 end_line=30 column=2 end_column=3}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}
2 {{file_location_id=2 parent_frame_id=2}}
3 {{file_location_id=3 parent_frame_id=3}}
4 {{file_location_id=3 parent_frame_id=2}}

"""
HEAD = "HloModule jit_step, is_scheduled=true\n\n"
PROGRAM = """
%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %n = f32[2]{0} negate(%p)
  ROOT %m = f32[2]{0} multiply(%n, %n)
}

%body (s: (s32[], f32[2])) -> (s32[], f32[2]) {
  %s = (s32[], /*index=1*/f32[2]{0}) parameter(0)
  %x = f32[2]{0} get-tuple-element(%s), index=1
  %f = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="mul" stack_frame_id=3}
  %c = f32[2]{0} copy(%f)
  ROOT %t = (s32[], f32[2]{0}) tuple(%x, %c)
}

%goes_on (s: (s32[], f32[2])) -> pred[] {
  ROOT %k = pred[] fusion(%s), kind=kLoop, calls=%fused
}

%little (p: f32[2]) -> f32[2] {
  ROOT %r = f32[2]{0} fusion(%p), kind=kInput, calls=%fused
}

%much (p: f32[2]) -> f32[2] {
  %a = f32[2]{0} fusion(%p), kind=kInput, calls=%fused
  ROOT %b = f32[2]{0} custom-call(%a), custom_call_target="__cudnn$convForward", \
metadata={op_name="conv" stack_frame_id=2}
}

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%sent (p: f32[2]) -> f32[2] {
  ROOT %rs = f32[2]{0} reduce-scatter(%p), to_apply=%sum
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %w = (s32[], f32[2]{0}) while(%z), condition=%goes_on, body=%body, \
backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}
  %v = (s32[], f32[2]{0}) while(%z), condition=%goes_on, body=%body
  %o = f32[2]{0} conditional(%i, %d, %d), branch_computations={%much, %little}
  %as = ((f32[2]{0}), f32[2]{0}) async-start(%p), calls=%sent
  %ad = f32[2]{0} async-done(%as)
  %ar = f32[2]{0} all-reduce-start(%p), to_apply=%sum, metadata={op_name="up" stack_frame_id=4}
  %ed = f32[2]{0} all-reduce-done(%ar)
  ROOT %out = f32[2]{0} bitcast(%ed)
}
"""


def test_loops_choices_and_what_takes_no_kernel():
  found = kernels(read(HEAD + TABLES + PROGRAM))
  assert found.kinds == {
    "fusion Loop": 2 * 5 + 2 * 1,  # the counted loop's and what asks it to go on, and the other's
    "copy": 5 + 1,
    "fusion Input": 1,  # of the larger branch
    "__cudnn$convForward": 1,
    "reduce-scatter": 1,
    "all-reduce": 1,
  }
  assert found.total == 22


def test_places_are_the_innermost_line_of_ours_or_else_the_innermost():
  places = kernels(read(HEAD + TABLES + PROGRAM)).places
  # optax under layers.py, layers.py itself, optax under train.py alone, and those that say nothing
  assert places == {"models/layers.py:20": 6 + 1, "update.py:30": 1, "?": 14}
  from_0 = re.sub(r"parent_frame_id=(\d)", lambda n: f"parent_frame_id={int(n[1]) - 1}", TABLES)
  assert kernels(read(HEAD + from_0 + PROGRAM)).places == places


@pytest.mark.parametrize(
  ("metadata", "place"),
  [
    (f'metadata={{source_file="{OURS}losses/pixel.py" source_line=7}}', "losses/pixel.py:7"),
    ('metadata={op_name="f" source_file="/a/b.py"}', "b.py:?"),
    ('metadata={op_name="f" stack_frame_id=9}', "?"),
    ("", "?"),
  ],
)
def test_programs_without_tables(metadata, place):
  text = f"{HEAD}ENTRY main (p: f32[]) -> f32[] {{\n  ROOT a = f32[] add(p, p), {metadata}\n}}\n"
  found = kernels(read(text))
  assert found.places == {place: 1} and found.kinds == {"add": 1}


def test_a_text_that_is_no_program_has_none():
  assert kernels(read("")).total == 0


@pytest.fixture
def with_places():
  """Programs tell where they are from, as in a user's process, and are compiled by this one."""
  told = {"jax_traceback_in_locations_limit": 10, "jax_enable_compilation_cache": False}
  before = {key: jax.config.values[key] for key in told}
  for key, value in told.items():
    jax.config.update(key, value)
  yield
  for key, value in before.items():
    jax.config.update(key, value)


def test_what_is_compiled_here(with_places):
  def scaled(x):
    turned = lax.fori_loop(0, 7, lambda _, x: jnp.sort(x, 1), x)
    return resize_bilinear(turned, (16, 16), align_corners=False).sum()

  compiled = jax.jit(scaled).lower(jnp.zeros((1, 8, 8, 2))).compile()
  found = kernels(read(compiled.as_text()))
  assert found.kinds["sort"] == 7
  files = {place.partition(":")[0] for place in found.places}
  assert "models/resize.py" in files and files <= {"models/resize.py", "test_kernels.py", "?"}
  groups = profiled(lambda: compiled(jnp.zeros((1, 8, 8, 2))), 3, read(compiled.as_text()))
  assert set(groups) <= set(found.places)  # the program's, and nothing of what else ran meanwhile
  assert any(place.startswith("models/resize.py:") for place in groups)
  for place, group in groups.items():
    assert group.milliseconds > 0 and group.kernels <= found.places[place] + 1  # asked once more
