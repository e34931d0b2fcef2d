"""mmengine reads ``.yaml`` and ``.pkl`` as plain values: it would call whatever such a file names."""

from __future__ import annotations

from typing import IO, Any

from mmengine.fileio.handlers import pickle_handler, yaml_handler
from mmengine.fileio.handlers.registry_utils import register_handler

from visionpe.utils.checkpoints import ADVICE, clear_errors, is_trusted, safe_pickle_load
from visionpe.utils.errors import InputError, first_line


class PlainYaml(yaml_handler.YamlHandler):
    """Configs and annotations in YAML: values and Python's tuples."""

    def load_from_fileobj(self, file: IO[str], **kwargs: Any) -> Any:
        """What the file holds.

        Raises:
            InputError: If it is no YAML, or a tag in it would call something.
        """
        if not is_trusted():
            # In C where PyYAML was built with it: mmengine reads dozens of files for one "mmdet::" in a config.
            kwargs["Loader"] = getattr(yaml_handler.yaml, "CFullLoader", yaml_handler.yaml.FullLoader)
        try:
            return super().load_from_fileobj(file, **kwargs)
        except yaml_handler.yaml.constructor.ConstructorError as error:
            raise InputError(f"YAML was not loaded: {error.problem}; allowed: plain values; {ADVICE}") from None
        except yaml_handler.yaml.YAMLError as error:
            raise InputError(f"YAML cannot be read ({first_line(error, 120)})") from None


class PlainPickle(pickle_handler.PickleHandler):
    """Annotations in pickles: arrays and plain containers."""

    def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
        """What the file holds.

        Raises:
            InputError: If it is cut off, or would call something else.
        """
        with clear_errors(str(getattr(file, "name", "a pickle"))):
            return safe_pickle_load(file, **kwargs)


def install() -> None:
    """Make ``mmengine.load`` and its configs take these."""
    register_handler(["yaml", "yml"])(PlainYaml)
    register_handler(["pkl", "pickle"])(PlainPickle)
