"""ALDM: from any modality to any other in 3D, by latent diffusion with MS-SPADE (Kim and Park, WACV 2024).

An autoencoder makes latents of whole volumes; MS-SPADE, switched by the target, makes the source's latents like the
target's; a diffusion that sees both leads to the target's latents, which are decoded. One network for many directions
of one source each; MS-SPADE is keyed by the target only, and a target may be its own source (reconstruction).

Three stages in one training, by shares of its length: ``autoencoder`` (L1, codebook, and if they are given weights a
hinge GAN after a delay and a perceptual term), ``spade`` (L1 between quantised latents, autoencoder fixed; a cycle term
if it has a weight), ``diffusion`` (mean square error of the prediction, the rest fixed).

Presets. ``paper``: autoencoder 256/512/512 with one residual block a level in the encoder and two in the decoder,
attention in the middle, 8,192 codes of length 3, MS-SPADE of table B; with the discriminator 237.01 M parameters, the
published number. U-Net 128/256/512, two blocks; the published "658 M" fit its size in megabytes. The class comes by
cross-attention, the conditions are target-like latents only. ``code``: the authors' current code: 6.5 M + 18.9 M +
33.2 M, class embedding, source and target-like latents. ``tiny`` is for minutes on a CPU. Its latents hold all eight
voxels of a patch of 2x2x2, from which they start (``shortcut``, ours), so that few steps of training suffice and
nothing need be lost, and no codes to search (``kl``). Ours too: convolutions within slices that see the ones beside
(``planar``), MS-SPADE and U-Net in a shape that learns sharp edges sooner (``spade_nested``, ``unet_nested``); steps of
training that see slabs, and whole volumes at the end of each stage (``slab``, ``whole_after``), with latents that are
made once (``latent_memory``); Muon in place of Adam for matrices (``matrices``). The diffusion is of what MS-SPADE
leaves (``residual``) and has most of the time. One step ends near the mean of what is likely, which has the least error
but is smooth, and is trained for (``first_level_share``); the preset's more steps draw one of the likely volumes, as
published. The U-Net also says how wrong its prediction may be (``learned_variance``), which several samples are drawn
with, so that samples of one step (``sample_steps``) have a spread.

Mended, each with a switch back: the published code weighs the wrong term of the codebook's loss (``vq_legacy``), has
codebook weight 0 in its current configuration, with which all latents stay near zero (``codebook_weight``), does not
scale latents (``latent_scale = 1``), draws 200 stochastic steps of DDIM (``steps``, ``eta = 1``). Ours: dead codes are
revived, latents are centred as well as scaled, the chain begins at the last level. The perceptual and the cycle loss of
the paper appear in no version of the code; they are off. Moving averages of weights: ``[training] ema_decay``.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from MedXlateCore.models.aldm_config import AldmConfig
from MedXlateCore.models.aldm_net import AldmNetwork, AldmTowards
from MedXlateCore.models.aldm_recipe import AldmRecipe, AldmRecipeConfig
from MedXlateCore.models.method import Method, Recipe
from MedXlateCore.models.registry import register_model

__all__ = ["Aldm", "AldmConfig", "AldmNetwork", "AldmRecipe", "AldmRecipeConfig"]


@register_model("aldm")
class Aldm(Method):
    """Latent diffusion in 3D for many directions of one source."""

    config_type = AldmConfig
    recipe_type = AldmRecipeConfig
    presets = {
        "paper": AldmConfig(
            widths=(256, 512, 512),
            middle="attention",
            latent_channels=3,
            spade_widths=(256, 256, 256, 128),
            spade_stem=128,
            spade_residual=(256, 256),
            cond_inputs="paper",
            conditioning="crossattn",
            unet_widths=(128, 256, 512),
            unet_blocks=2,
            directions=("T1->T1ce", "T1->T2", "T1->FLAIR", "T2->T1"),
        ),
        "code": AldmConfig(directions=("T1->T1ce", "T1->T2", "T1->FLAIR", "T2->T1")),
        "tiny": AldmConfig(
            widths=(32,),
            decoder_blocks=1,
            middle="none",
            patch=2,
            shortcut=True,
            latent_channels=8,
            regulariser="kl",
            codes=1024,
            codebook="average",
            planar=True,
            spade_nested=True,
            spade_widths=(16, 48),
            spade_hidden=8,
            spade_scaled=True,
            unet_nested=True,
            unet_widths=(32, 64, 96),
            residual=True,
            prediction="v",
            learned_variance=True,
            sampler="dpm_solver",
            steps=15,
            sample_steps=1,
            directions=("T1->T2", "T1->FLAIR", "T2->T1"),
        ),
    }
    recipe_presets = {
        "tiny": AldmRecipeConfig(
            autoencoder_share=0.03,
            spade_share=0.05,
            diffusion_share=0.92,
            autoencoder_rate=4e-3,
            spade_rate=2.5e-3,
            diffusion_rate=2e-3,
            matrices="muon",
            schedule="cosine",
            adversarial_weight=0.0,
            first_level_share=0.3,
            latent_memory=2048,
            slab=16,
            whole_after=0.5,
            flip_depth=0.0,
            flip_height=0.0,
            flip_width=0.5,
        )
    }
    citation = (
        "Kim J, Park H. Adaptive Latent Diffusion Model for 3D Medical Image to Image Translation: Multi-Modal "
        "Magnetic Resonance Imaging Study. WACV 2024."
    )
    volumetric = True
    draws_samples = True

    def build(self, config: Any) -> nn.Module:
        """Return a freshly initialised network."""
        return AldmNetwork(config)

    def recipe(self, config: Any, recipe_config: Any) -> Recipe:
        """Return the recipe with a fresh network."""
        return AldmRecipe(config, recipe_config)

    def n_sources(self, config: Any) -> int:
        """Return 1."""
        return 1

    def size_multiple(self, config: Any) -> int:
        """Return the number that depth, height and width must be a multiple of."""
        return config.multiple

    def towards(self, network: nn.Module, config: Any, direction: int) -> nn.Module:
        """Return the network for one of its directions."""
        return AldmTowards(cast(AldmNetwork, network), direction)
