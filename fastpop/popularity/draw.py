"""Where `Draw` was before it became an op: code and pickles that name this module find it."""

from fastpop.ops.draw import Draw as Draw
from fastpop.ops.draw import seed_of as seed_of
