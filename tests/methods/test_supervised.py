"""What tests of every method need to know of this one."""

SMALL = {"plain": {}}
