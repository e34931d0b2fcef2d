"""The encodings, one a file, in folders by what they do; the wrappers over them. Importing this registers them all.

``absolute`` (added to the tokens), ``rotary`` (queries and keys are turned), ``bias`` (added to the attention logits),
``convolution`` (of tokens or values), ``none`` (the control); ``wrappers`` make positions random in training.
"""

from importlib import import_module
from pkgutil import walk_packages
from typing import TYPE_CHECKING

from visionpe._renamed import old_modules

# A new encoding is one new file: every module below this folder is imported, and registers what it defines.
for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)

if not TYPE_CHECKING:
    __getattr__ = old_modules(__name__)
