"""What series are made of, as networks have learned it from the truth of drawn ones."""

from seqlatent.amortised.latents.estimate import (
    Latents,
    Parameters,
    at_levels,
    latents,
    parameters,
)
from seqlatent.amortised.latents.network import LatentNetwork
from seqlatent.amortised.latents.training import LatentTrainer, components_of
from seqlatent.amortised.latents.truth import EVENTS, PARAMETERS, PRESENT
from seqlatent.amortised.latents.weights import latent_card, latent_hash, load_latent_networks

__all__ = [
    "EVENTS",
    "PARAMETERS",
    "PRESENT",
    "LatentNetwork",
    "LatentTrainer",
    "Latents",
    "Parameters",
    "at_levels",
    "components_of",
    "latent_card",
    "latent_hash",
    "latents",
    "load_latent_networks",
    "parameters",
]
