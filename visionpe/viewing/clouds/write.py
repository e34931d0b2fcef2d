"""A cloud as a page to turn and a picture, side by side."""

from __future__ import annotations

from pathlib import Path

from visionpe.utils.errors import InputError
from visionpe.viewing.clouds import picture
from visionpe.viewing.clouds.camera import View
from visionpe.viewing.clouds.cloud import Cloud
from visionpe.viewing.clouds.page import write_page


def write_views(
    cloud: Cloud, out: Path | None = None, view: View | None = None, *, most: int = 200_000, start: str = "RGB"
) -> tuple[list[Path], int]:
    """Write ``OUT.html``, one file that needs no network, and ``OUT.png``.

    Args:
        cloud: The points.
        out: Path without a suffix; the name of the cloud by default.
        view: Where it is seen from.
        most: Points in the page; of more, so many at random.
        start: The colouring that the page opens with: ``RGB``, ``label``, ``prediction``, ``features``.

    Returns:
        The two files, and how many points the page holds.

    Raises:
        InputError: If they cannot be written.
    """
    out, view = out or Path(cloud.name.replace(" ", "_")), view or View()
    page, image = out.with_name(out.name + ".html"), out.with_name(out.name + ".png")
    try:
        inside = write_page(page, cloud, view, start=start, most=most)
        picture.write_png(image, cloud, view)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return [page, image], inside
