"""timm's weights from the hub and from addresses: no minute of retries without a network, and files looked at first."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from timm.models import _builder, _hub

from visionpe.utils.checkpoints import clear_errors, is_trusted, plain_types_only
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.file_kinds import check_content, check_file, warn_of_nonfinite

ADVICE = "allowed: a network, weights that were fetched before, or a file (checkpoint_path, --checkpoint)"
PATIENCE = 10.0  # seconds that the hub has to answer
FORGET = 60.0  # seconds after which one that did not answer is asked again
# What a fetch that fails raises: classes of the hub's library and of Python's, by name, as the former may be missing.
FAILURES = {"HfHubHTTPError", "LocalEntryNotFoundError", "OfflineModeIsEnabled", "URLError", "OSError"}
_failed: tuple[float, str] = (float("-inf"), "")

_download, _from_hf, _config = _hub.hf_hub_download, _hub.load_state_dict_from_hf, _hub.load_model_config_from_hf
_from_url, _cached = _builder.load_state_dict_from_url, _hub.download_cached_file


def _no_answer(repo: str, filename: str, revision: str | None) -> str:
    """Why the hub does not answer; empty where it does, whatever it says."""
    global _failed
    if time.monotonic() - _failed[0] < FORGET:
        return _failed[1]
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision), timeout=PATIENCE)
    except HfHubHTTPError:
        return ""
    except Exception as error:  # of whatever library speaks HTTP
        _failed = (time.monotonic(), first_line(error, 80))
        return _failed[1]
    return ""


def hf_hub_download(repo_id: str, filename: str, *args: Any, **kwargs: Any) -> str:
    """The hub's own, which retries for a minute where there is no network.

    Raises:
        LocalEntryNotFoundError: If the file is not in the cache and the hub does not answer.
        visionpe.utils.errors.InputError: If a file of weights is cut off, or none.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import LocalEntryNotFoundError

    options = {"revision": kwargs.get("revision"), "cache_dir": kwargs.get("cache_dir")}
    if not isinstance(try_to_load_from_cache(repo_id, filename, **options), str):
        reason = _no_answer(repo_id, filename, kwargs.get("revision"))
        if reason:
            raise LocalEntryNotFoundError(f"{repo_id}/{filename}: {reason}")
    path = _download(repo_id, filename, *args, **kwargs)
    if not filename.endswith(".json"):
        check_file(path)
    return path


@contextmanager
def _fetching(what: str) -> Iterator[None]:
    """One clear error where weights cannot be fetched, or are none."""
    try:
        with clear_errors(what):
            yield
    except InputError:
        raise
    except Exception as error:
        if FAILURES & {kind.__name__ for kind in type(error).__mro__}:
            raise InputError(f"weights {what!r} cannot be fetched ({first_line(error, 120)}); {ADVICE}") from None
        raise


@wraps(_from_hf)
def load_state_dict_from_hf(model_id: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """timm's own.

    Raises:
        visionpe.utils.errors.InputError: If the weights cannot be fetched, or what was fetched is none.
    """
    with _fetching(model_id), plain_types_only():
        state = _from_hf(model_id, *args, **kwargs)
    check_content(state, model_id)
    warn_of_nonfinite(state, model_id)
    return state


@wraps(_config)
def load_model_config_from_hf(model_id: str, *args: Any, **kwargs: Any) -> Any:
    """timm's own, of names such as ``hf-hub:timm/resnet18.a1_in1k``.

    Raises:
        visionpe.utils.errors.InputError: If the configuration cannot be fetched.
    """
    with _fetching(model_id):
        return _config(model_id, *args, **kwargs)


@wraps(_from_url)
def load_state_dict_from_url(url: str, model_dir: str | None = None, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """PyTorch's own, as timm calls it.

    Raises:
        visionpe.utils.errors.InputError: If the weights cannot be fetched, or what was fetched is none.
    """
    fetched = Path(model_dir or _hub.get_cache_dir(), kwargs.get("file_name") or os.path.basename(urlparse(url).path))
    if fetched.exists():
        check_file(fetched)
    with _fetching(url), plain_types_only():
        state = _from_url(url, model_dir, *args, **{**kwargs, "weights_only": not is_trusted()})
    check_content(state, url)
    warn_of_nonfinite(state, url)
    return state


@wraps(_cached)
def download_cached_file(url: Any, *args: Any, **kwargs: Any) -> str:
    """timm's own, for files that models read themselves.

    Raises:
        visionpe.utils.errors.InputError: If the file cannot be fetched, or is no file of weights.
    """
    with _fetching(url if isinstance(url, str) else url[0]):
        path = _cached(url, *args, **kwargs)
    check_file(path)
    return path


# What stands in the place of what.
REPLACED = [
    ("load_state_dict_from_hf", _from_hf, load_state_dict_from_hf),
    ("load_model_config_from_hf", _config, load_model_config_from_hf),
    ("load_state_dict_from_url", _from_url, load_state_dict_from_url),
    ("download_cached_file", _cached, download_cached_file),
]
if _hub.has_hf_hub():
    REPLACED.append(("hf_hub_download", _download, hf_hub_download))
