"""Regularised latents: vector quantisation with a codebook that stays alive, and the Kullback-Leibler alternative.

van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017 (codebook by gradient; appendix A.1: by
moving averages); Rombach et al., CVPR 2022 (both regularisers of an autoencoder for latent diffusion). Maps are
[B, C, D, H, W]. Everything here is computed in fp32 whatever the precision around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedXlateCore.models.blocks.precision import full_precision

__all__ = ["GaussianRegulariser", "Regularised", "VectorQuantiser"]

CHUNK = 1 << 20  # distances computed at once; few enough for a processor's cache
USAGE_DECAY = 0.98  # of the count of how often each code is taken
EPS = 1e-5


@dataclass(frozen=True)
class Regularised:
    """What a regulariser makes of latents.

    Attributes:
        latents: [B, C, D, H, W]; gradients go through to what came in.
        loss: scalar, to be added to the autoencoder's.
        perplexity: scalar, exp of the entropy of the codes' use in this batch: from 1 (all places take one code) to
            the number of codes. 0 where there is no codebook.
    """

    latents: Tensor
    loss: Tensor
    perplexity: Tensor


class VectorQuantiser(nn.Module):
    """Replaces each latent vector by the nearest code; gradients go straight through.

    The loss is ``|sg[z] - e|^2 + beta |z - sg[e]|^2``: ``beta`` weighs the commitment of the encoder. ``legacy`` puts
    it on the other term, as a widely copied public implementation does by mistake.

    Codes that nobody takes get no gradient and would stay dead. While training, how often each is taken is counted (a
    moving average); a code taken far less than once a batch is put where a latent of the batch is.

    Args:
        codes: number of codes.
        channels: length of each.
        beta: weight of one of the two terms.
        legacy: the published mistake.
        update: ``gradient`` learns the codebook by the loss, ``average`` moves each code to the mean of the latents
            that take it (moving averages; then only the commitment term is left in the loss).
        decay: of those averages.
        revive: taken less often a batch than this, a code is dead; 0 revives none.
    """

    book: Tensor
    sums: Tensor
    counts: Tensor
    usage: Tensor

    def __init__(
        self,
        codes: int,
        channels: int,
        beta: float = 0.25,
        legacy: bool = False,
        update: Literal["gradient", "average"] = "gradient",
        decay: float = 0.99,
        revive: float = 0.01,
    ) -> None:
        super().__init__()
        self.codes, self.beta, self.legacy = codes, beta, legacy
        self.update, self.decay, self.revive = update, decay, revive
        book = torch.empty(codes, channels).uniform_(-1 / codes, 1 / codes)
        if update == "gradient":
            self.book = nn.Parameter(book)
        else:
            self.register_buffer("book", book)
            self.register_buffer("sums", book.clone())
            self.register_buffer("counts", torch.ones(codes))
        # times taken a batch, moving average; at first all are dead, so the first batch puts them where latents are
        self.register_buffer("usage", torch.zeros(codes))

    def forward(self, z: Tensor, draws: Tensor | None = None) -> Regularised:
        """Quantise.

        Args:
            z: latents [B, C, D, H, W].
            draws: uniform random numbers [codes] in [0, 1): which latents revive dead codes. Only with these does a
                training call change counts and revive; without, nothing is changed.
        """
        with full_precision(z):
            flat = z.float().movedim(1, -1).reshape(-1, z.shape[1])
            if draws is not None and self.training:
                self._revive(flat.detach(), draws)
            indices = self.nearest(flat)
            # the entries are read before the averages move, or the backward pass would find other values
            chosen = F.embedding(indices, self.book)
            loss = self._loss(flat, chosen)
            taken = torch.zeros_like(self.usage).index_add_(0, indices, torch.ones_like(flat[:, 0]))
            if draws is not None and self.training:
                self._count(flat.detach(), indices, taken)
            shares = taken / taken.sum()
            perplexity = torch.exp(-(shares * (shares + 1e-10).log()).sum())
            through = flat + (chosen - flat).detach()
            latents = through.view(*z.movedim(1, -1).shape).movedim(-1, 1)
        return Regularised(latents, loss, perplexity)

    @torch.no_grad()
    def nearest(self, flat: Tensor) -> Tensor:
        """Return the positions [N] of the codes nearest to latent vectors [N, C]; in pieces, to bound memory."""
        squares = self.book.square().sum(dim=1)
        pieces = flat.split(max(1, CHUNK // self.codes))
        return torch.cat([torch.addmm(squares, piece, self.book.T, alpha=-2).argmin(dim=1) for piece in pieces])

    def _loss(self, flat: Tensor, chosen: Tensor) -> Tensor:
        commitment = F.mse_loss(flat, chosen.detach())
        if self.update == "average":
            return self.beta * commitment
        codebook = F.mse_loss(chosen, flat.detach())
        return commitment + self.beta * codebook if self.legacy else codebook + self.beta * commitment

    @torch.no_grad()
    def _count(self, flat: Tensor, indices: Tensor, taken: Tensor) -> None:
        self.usage.lerp_(taken, 1 - USAGE_DECAY)
        if self.update == "gradient":
            return
        self.counts.lerp_(taken, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, indices, flat), 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + EPS) / (total + self.codes * EPS) * total  # no code is divided by zero
        self.book.copy_(self.sums / smooth[:, None])

    @torch.no_grad()
    def _revive(self, flat: Tensor, draws: Tensor) -> None:
        dead = self.usage < self.revive
        places = (draws * len(flat)).long().clamp(max=len(flat) - 1)
        put = flat[places]
        self.book.data.copy_(torch.where(dead[:, None], put, self.book))
        self.usage.copy_(torch.where(dead, torch.ones_like(self.usage), self.usage))
        if self.update == "average":
            self.sums.copy_(torch.where(dead[:, None], put, self.sums))
            self.counts.copy_(torch.where(dead, torch.ones_like(self.counts), self.counts))


class GaussianRegulariser(nn.Module):
    """Latents as normal distributions held near the standard one (Kingma and Welling, ICLR 2014).

    Takes means and logarithms of variances [B, 2C, D, H, W]. In evaluation the latents are the means.
    """

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Regularised:
        """Draw latents.

        Args:
            z: means and logarithms of variances.
            noise: standard normal [B, C, D, H, W]; without it the means are taken.
        """
        with full_precision(z):
            mean, spread = z.float().chunk(2, dim=1)
            spread = spread.clamp(-30, 20)
            loss = 0.5 * (mean.square() + spread.exp() - 1 - spread).mean()
            latents = mean if noise is None else mean + (0.5 * spread).exp() * noise
        return Regularised(latents, loss, torch.zeros((), device=z.device))
