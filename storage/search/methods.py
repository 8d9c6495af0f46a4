"""The search methods. Imports nothing heavy: the help of the command line reads them."""

from typing import Literal

__all__ = ["SearchMethod", "SearchMethodSetting"]

SearchMethod = Literal["exact", "ivf", "lance"]
SearchMethodSetting = Literal["auto", "exact", "ivf", "lance"]  # `auto`: by the number of rows
