"""Libraries that some of the package needs, and that a plain installation leaves out."""

from __future__ import annotations

import importlib
from typing import Any

_EXTRAS = {
    **dict.fromkeys(("polars", "ml_dtypes"), "eval"),
    **dict.fromkeys(("pyarrow", "yaml"), "formats"),
    **dict.fromkeys(("altair", "jinja2", "vl_convert"), "report"),
    **dict.fromkeys(("torch", "transformers", "gguf", "accelerate"), "models"),
    **dict.fromkeys(("dask", "distributed"), "dask"),
}


def module(name: str) -> Any:
    """Import a library, or a module of this package whose libraries may be missing.

    Raises
    ------
    ModuleNotFoundError
        With the line that installs what is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        raise ModuleNotFoundError(
            f"this needs {missing}: pip install 'kldiv[{_EXTRAS[missing]}]'", name=error.name
        ) from None
