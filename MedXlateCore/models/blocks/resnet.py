"""Johnson's residual image-to-image network, whole and in parts: encoder, residual blocks, decoder.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017, appendix 7.2.
Maps are [B, C, H, W], or [B, C, K, H, W] where ``dimensions`` is 3. As published, convolutions before an instance
normalisation have a bias, which the normalisation takes away again, and instance normalisation learns no gain: so the
number of parameters is the published one.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from MedXlateCore.models.blocks.dimensions import CONVOLUTION, REFLECTION, TRANSPOSED, pixels_first
from MedXlateCore.models.blocks.init import channels_last, init_normal
from MedXlateCore.models.blocks.norms import Norm, norm_layer

__all__ = ["ResidualBlock", "ResnetGenerator", "downsample", "resnet_decoder", "resnet_encoder", "upsample"]


def _normed(
    kinds: Mapping[int, type[nn.Module]], dimensions: int, channels: int, out: int, norm: Norm, **options: int
) -> list[nn.Module]:
    """Return a 3x3 or wider convolution and its normalisation."""
    size = options.pop("size", 3)
    layer = kinds[dimensions](channels, out, size, bias=norm in ("instance", "none"), **options)
    return [layer, norm_layer(norm, out, affine=False, dimensions=dimensions)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with mirrored borders and normalisation, ReLU between, added to the input; shape is kept.

    Args:
        channels: C.
        norm: the normalisation.
        dropout: probability of dropping a value between the convolutions; 0 for no such layer.
        dimensions: 2, or 3 for volumes.
    """

    def __init__(self, channels: int, norm: Norm = "batch", dropout: float = 0.0, dimensions: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            REFLECTION[dimensions](1),
            *_normed(CONVOLUTION, dimensions, channels, channels, norm),
            nn.ReLU(True),
            *([nn.Dropout(dropout)] if dropout else []),
            REFLECTION[dimensions](1),
            *_normed(CONVOLUTION, dimensions, channels, channels, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolutions' result."""
        return x + self.layers(x)


def downsample(channels: int, out: int, norm: Norm = "batch", dimensions: int = 2) -> list[nn.Module]:
    """Return a 3x3 convolution of stride 2, normalisation and ReLU: [B, C, H, W] to [B, out, H/2, W/2]."""
    return [*_normed(CONVOLUTION, dimensions, channels, out, norm, stride=2, padding=1), nn.ReLU(True)]


def upsample(channels: int, out: int, norm: Norm = "batch", dimensions: int = 2) -> list[nn.Module]:
    """Return a transposed 3x3 convolution of stride 2, normalisation and ReLU: [B, C, H, W] to [B, out, 2H, 2W]."""
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    return [*_normed(TRANSPOSED, dimensions, channels, out, norm, **options), nn.ReLU(True)]


def resnet_encoder(inputs: int, width: int, norm: Norm = "batch", dimensions: int = 2) -> nn.Sequential:
    """Return the encoder: 7x7 to ``width`` channels, then two halvings: [B, S, H, W] to [B, 4 * width, H/4, W/4]."""
    return nn.Sequential(
        REFLECTION[dimensions](3),
        *_normed(CONVOLUTION, dimensions, inputs, width, norm, size=7),
        nn.ReLU(True),
        *downsample(width, 2 * width, norm, dimensions),
        *downsample(2 * width, 4 * width, norm, dimensions),
    )


def resnet_decoder(width: int, norm: Norm = "batch", dimensions: int = 2) -> nn.Sequential:
    """Return the decoder, tanh at its end: [B, 4 * width, H/4, W/4] to [B, 1, H, W] in [-1, 1]."""
    return nn.Sequential(
        *upsample(4 * width, 2 * width, norm, dimensions),
        *upsample(2 * width, width, norm, dimensions),
        REFLECTION[dimensions](3),
        CONVOLUTION[dimensions](width, 1, 7),
        nn.Tanh(),
    )


class ResnetGenerator(nn.Module):
    """The whole network, [B, S, H, W] to [B, 1, H, W] in [-1, 1], for H and W of multiples of 4; of volumes, 8.

    With the defaults ("ResNet-9") and one source it has 11,365,633 parameters.

    Args:
        inputs: S.
        width: channels at full resolution, four times this in the residual blocks.
        blocks: number of residual blocks.
        norm: the normalisation.
        dropout: probability, in the residual blocks.
        dimensions: 2, or 3 for volumes.
    """

    multiple = 4

    def __init__(
        self,
        inputs: int,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "instance",
        dropout: float = 0.0,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        # volumes may have few slices, and at a quarter of their number mirrored borders need two
        self.multiple = self.multiple if dimensions == 2 else 8
        self.encoder = resnet_encoder(inputs, width, norm, dimensions)
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, norm, dropout, dimensions) for _ in range(blocks)))
        self.decoder = resnet_decoder(width, norm, dimensions)
        init_normal(self)
        channels_last(self, dimensions)

    def forward(self, images: Tensor) -> Tensor:
        """Translate."""
        return self.decoder(self.blocks(self.encoder(pixels_first(images))))
