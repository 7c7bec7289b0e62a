"""Losses shared by the methods' recipes. Each returns a scalar tensor: the mean over everything it is given."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "beta_likelihood",
    "cross_entropy_discriminator",
    "cross_entropy_generator",
    "hinge_discriminator",
    "hinge_generator",
    "l1",
    "lsgan_discriminator",
    "lsgan_generator",
    "masked_l1",
    "r1_penalty",
    "softplus_discriminator",
    "softplus_generator",
    "ssim_loss",
]


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of two tensors of one shape."""
    return functional.l1_loss(prediction, target)


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute difference where ``mask`` (0 or 1, broadcastable) is 1; 0 for an empty mask."""
    weight = mask.expand_as(target).to(target.dtype)
    return (weight * (prediction - target).abs()).sum() / weight.sum().clamp(min=1.0)


def lsgan_discriminator(real: Tensor, fake: Tensor, *, half: bool = True, real_label: float = 1.0) -> Tensor:
    """Return the least-squares loss of a discriminator: real scores are to be 1, fake scores 0.

    Args:
        real: scores of real images, any shape.
        fake: scores of synthetic images, detached from the generator.
        half: average the two terms (the factor 1/2 of the TLP code) instead of adding them (as in TLP's equation 6).
        real_label: below 1 for a smoothed label of real images (Salimans et al., NeurIPS 2016, section 3.4).
    """
    loss = functional.mse_loss(real, torch.full_like(real, real_label)) + functional.mse_loss(
        fake, torch.zeros_like(fake)
    )
    return 0.5 * loss if half else loss


def lsgan_generator(fake: Tensor) -> Tensor:
    """Return the least-squares adversarial loss of a generator: scores of its images are to be 1."""
    return functional.mse_loss(fake, torch.ones_like(fake))


def beta_likelihood(prediction: Tensor, target: Tensor, log_spread: Tensor, beta: float) -> Tensor:
    """Return the negative log-likelihood of a normal distribution, weighed by its variance to the power of ``beta``.

    Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty Estimation", ICLR 2022, equation 5. With 0 it is the
    likelihood, whose means learn least where the spread is large; with 1 they learn as from the squared error.

    Args:
        prediction: means.
        target: what they should be, of the same shape.
        log_spread: logarithms of the standard deviations.
        beta: 0 to 1.
    """
    variance = torch.exp(2 * log_spread)
    likelihood = functional.gaussian_nll_loss(prediction, target, variance, reduction="none")
    return (variance.detach() ** beta * likelihood).mean()


def ssim_loss(prediction: Tensor, target: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return 1 - SSIM with a Gaussian window, averaged over the places where the window lies inside the image.

    Wang et al., IEEE TIP 2004, with K1 = 0.01, K2 = 0.03, biased variances and a range of 1.

    Args:
        prediction: images [B, C, H, W] in [0, 1], H and W at least ``window``.
        target: images of the same shape.
        window: side of the window, pixels.
        sigma: of the Gaussian, pixels.
    """
    channels = prediction.shape[1]
    offsets = torch.arange(window, device=prediction.device, dtype=torch.float32) - (window - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(channels, 1, 1, window)

    def smooth(x: Tensor) -> Tensor:
        """Take the window's mean at each place."""
        rows = functional.conv2d(x, weights, groups=channels)
        return functional.conv2d(rows, weights.transpose(2, 3), groups=channels)

    x, y = prediction.float(), target.float()
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return 1 - (luminance * structure).mean()


def cross_entropy_discriminator(real: Tensor, fake: Tensor, *, real_label: float = 1.0) -> Tensor:
    """Return the cross-entropy loss of a discriminator, halved as in pix2pix (Isola et al., CVPR 2017, section 3.3).

    Args:
        real: scores of real images before the sigmoid, any shape.
        fake: scores of synthetic images, detached from the generator.
        real_label: below 1 for a smoothed label of real images, as in :func:`lsgan_discriminator`.
    """
    entropy = functional.binary_cross_entropy_with_logits
    return 0.5 * (entropy(real, torch.full_like(real, real_label)) + entropy(fake, torch.zeros_like(fake)))


def cross_entropy_generator(fake: Tensor) -> Tensor:
    """Return the cross-entropy adversarial loss of a generator in its non-saturating form, -log D of its images."""
    return functional.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def softplus_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return a discriminator's non-saturating loss, the sum of its two terms (Goodfellow et al., NeurIPS 2014).

    Args:
        real: scores of real images before the sigmoid, any shape.
        fake: scores of synthetic images, detached from the generator.
    """
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def softplus_generator(fake: Tensor) -> Tensor:
    """Return a generator's non-saturating adversarial loss, -log D of its images."""
    return functional.softplus(-fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return a discriminator's hinge loss, halved (Lim and Ye, 2017; VQGAN): real scores above 1, fake ones below -1.

    Args:
        real: scores of real images, any shape.
        fake: scores of synthetic images, detached from the generator.
    """
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """Return a generator's adversarial loss beside the hinge loss: scores of its images are to be high."""
    return -fake.mean()


def r1_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Return half the squared gradient of the scores of real images (Mescheder et al., ICML 2018, equation 9).

    Args:
        scores: of the images, [B, ...], made with gradients.
        images: [B, C, H, W], which need gradients.

    Returns:
        The mean over the images; differentiable.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(dim=1).mean()
