"""Numbers with a decimal comma as numbers with a decimal point, such that what had a point before is no number.

    pointed("1,5"), pointed("1.5"), pointed("1.234,5")        # "1.5", "1x5", "1x234.5"

`data.csv.decimal` says how the numbers of a table are written.
"""

from __future__ import annotations

from typing import Any

_NO_NUMBER = "x"
_SIGNS = str.maketrans({".": _NO_NUMBER, ",": "."})


def pointed(text: str) -> str:
    """Writes one number with a point."""
    return text.translate(_SIGNS)


def pointed_column(texts: Any) -> Any:
    """Writes the numbers of an Arrow array of text with a point."""
    import pyarrow.compute as pc

    return pc.replace_substring(pc.replace_substring(texts, ".", _NO_NUMBER), ",", ".")
