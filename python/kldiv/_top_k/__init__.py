"""Rows of which the most probable classes are kept, or classes that were drawn."""

from kldiv._top_k.container import TopK as TopK
from kldiv._top_k.flat import Flat as Flat
