"""Accuracy, speed and memory of vision models against the input resolution.

:func:`measure` is the Python side of ``visionpe scaling``. ``options`` names what can be asked for, ``study`` does it:
``models`` builds what is measured, ``images`` and ``folder`` show the images under the two ``protocols``, ``plan``
lists the rows, ``sweep`` walks over them and ``row`` fills one; ``controls`` brings images to the trained size,
``diagnostics`` looks at attention, ``auto`` chooses policies, ``store`` keeps finished rows, ``processes`` share them.
``statistics`` and ``summary`` turn rows into lines with intervals, ``published`` has what papers state; ``report``,
``markdown``, ``plot``, ``policy_plot``, ``change_plot`` and ``page`` show them, ``conclusions`` says them in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionpe.scaling.measuring import measure

__all__ = ["measure"]


def __getattr__(name: str) -> Any:
    """``measure``, imported when it is asked for: the options alone need no PyTorch."""
    if name != "measure":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from visionpe.scaling.measuring import measure

    return measure
