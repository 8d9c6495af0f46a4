"""The search methods. Imports nothing heavy: the help of the command line reads them."""

from typing import Literal

__all__ = ["SearchMethod", "SearchMethodSetting"]

SearchMethod = Literal["exact", "ivf", "lance", "codes"]
# `auto`: by codes where the store has them, else by the number of rows
SearchMethodSetting = Literal["auto", "exact", "ivf", "lance", "codes"]
