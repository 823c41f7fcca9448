"""A local level on the flow of the Nile: exact inference, missing years, a forecast, and a picture.

Run it with ``python examples/nile.py --out nile.png``. Every fifth year is hidden, the model is
fitted to what remains, and the smoother gives the hidden years back with bands.
"""

import argparse

import matplotlib.pyplot as plt
import torch

from seqlatent.datasets import nile
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training import fit, lbfgs
from seqlatent.zoo import structural

HORIZON = 10


def main() -> None:
    """Fits, smooths, forecasts and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="nile.png", help="picture to write")
    out = parser.parse_args().out

    frame = nile()
    y = torch.tensor(frame["y"].to_numpy(), dtype=torch.float64)[None, :, None]
    shift, scale = y.mean(1), y.std(1)
    hidden = torch.zeros_like(y, dtype=torch.bool)
    hidden[:, 4::5] = True
    sequences = Sequences.of(y, shift=shift, scale=scale).hide(hidden)

    model = structural().double()
    history = fit(model, sequences, evidence, optimizer=lbfgs(), steps=50)
    print(f"{sequences}\n{history}\nlog evidence {evidence(model, sequences).item():.2f}")

    states = model.smooth(sequences)
    level = (states.mean * scale + shift).squeeze().detach()
    # the distribution of an observation: the level's own uncertainty and the noise around it
    noise = model.emission(states.mean[..., :1], model.context(sequences)).variance.squeeze()
    spread = (states.variance.squeeze() * scale.squeeze() ** 2 + noise).sqrt().detach()
    paths = model.forecast(
        model.belief(sequences, end=True),
        HORIZON,
        n=20_000,
        generator=torch.Generator().manual_seed(0),
    )
    low, middle, high = torch.quantile(
        paths.y[:, 0, :, 0], torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), dim=0
    )

    year = frame["ds"].dt.year.to_numpy()
    missed = hidden.squeeze().numpy()
    inside = ((y.squeeze() - level).abs() < 1.2816 * spread)[hidden.squeeze()].double().mean()
    print(f"80 % bands hold {100 * inside:.0f} % of the {missed.sum()} hidden years")
    draw(out, year, y.squeeze().numpy(), missed, level, spread, (low, middle, high))
    print(f"wrote {out}")


def draw(out, year, y, missed, level, spread, forecast) -> None:
    """Draws observations, the smoothed level, and the forecast with its 80 % bands."""
    low, middle, high = forecast
    ahead = year[-1] + 1 + torch.arange(HORIZON)
    fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    ax.fill_between(
        year, level - 1.2816 * spread, level + 1.2816 * spread, color="#0072B2", alpha=0.18, lw=0
    )
    ax.fill_between(ahead, low, high, color="#D55E00", alpha=0.22, lw=0)
    ax.plot(
        year, level, color="#0072B2", label="smoothed level; 80 % of observations lie in the band"
    )
    ax.plot(ahead, middle, color="#D55E00", label="forecast, 80 % interval")
    ax.plot(year[~missed], y[~missed], ".", color="black", ms=5, label="observed")
    ax.plot(
        year[missed], y[missed], "o", mfc="white", mec="black", ms=5, label="hidden from the model"
    )
    ax.set(ylabel="annual flow at Aswan (10⁸ m³)", title="A local level on the Nile")
    ax.legend(ncols=2, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
