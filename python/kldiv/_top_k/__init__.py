"""Rows of which the most probable classes are kept, or classes that were drawn."""

from kldiv._top_k.container import Flat as Flat
from kldiv._top_k.container import TopK as TopK
