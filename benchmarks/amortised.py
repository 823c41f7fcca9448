"""Are learned posteriors those that Bayes' theorem gives? Networks beside the exact answer.

    python benchmarks/amortised.py train NETWORKS.pt --minutes 30   # both networks, on one core
    python benchmarks/amortised.py exact NETWORKS.pt --series 200   # beside the exact answer
    python benchmarks/amortised.py ranks NETWORKS.pt                # simulation-based calibration
    python benchmarks/amortised.py ranks                            # the same of what is shipped

Series are a level with a slope, a season of 12 and normal noise, the sizes of whose shocks are
drawn (`exact_structural.py`). Networks that were trained on such series forecast and smooth fresh
ones; so do the Bayes answer, which integrates the sizes out, and maximum likelihood, which plugs
in the best ones. `exact`: CRPS of forecasts of 12 steps and energy score of their paths beside
Bayes', root mean square errors of smoothed level, slope and season beside its own, and what 80 %
intervals cover. `ranks`: how far the ranks of the truth among posteriors are from uniform (Talts
et al., 2018).
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from exact_structural import NAMES, SEASON, Exact, crps, curriculum
from origins import energy
from scipy.optimize import minimize
from scipy.stats import kstest

from seqlatent.amortised import LEVELS, Curriculum, Forecast, Network, Seasons, Trainer, forecast
from seqlatent.amortised.latents import (
    PARAMETERS,
    PRESENT,
    LatentNetwork,
    Latents,
    LatentTrainer,
    latents,
    load_latent_networks,
    parameters,
)
from seqlatent.amortised.latents.objective import draw
from seqlatent.amortised.latents.truth import truth_of
from seqlatent.amortised.quantiles import QuantileFunction

STEPS = 192
LENGTHS = ((20, 40), (40, 80), (80, 200))
PARTS = ("level", "slope", "season")
SIZES = {"width": 192, "depth": 3, "head_width": 96, "head_depth": 2}
STEPS_A_MINUTE = 500  # of one quiet core


def main() -> None:
    """Trains, or prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "exact", "ranks"))
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--series", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "train":
        train(given.file, given.minutes)
    elif given.what == "exact":
        beside_exact(*load(given.file), given.series)
    elif given.file is None:
        ranks(load_latent_networks(), Curriculum(batch=512), None)
    else:
        ranks([load(given.file)[1]], curriculum(512), Seasons(SEASON))


def train(file: Path, minutes: float) -> None:
    """Trains a network of forecasts and one of latents, each half of the time."""
    steps = int(minutes / 2 * STEPS_A_MINUTE)
    one = Trainer(curriculum(), steps=steps, seed=0)
    two = LatentTrainer(curriculum(), steps=steps, seed=0, network=SIZES)
    found = {}
    for name, trainer in (("forecast", one), ("latents", two)):
        network = trainer.run(file.with_suffix(f".{name}"), report=lambda t: print(t.step))
        found[name] = {"config": network.config, "state": network.state_dict()}
        print(f"{name}: {steps} steps in {trainer.seconds:.0f} s of the processor", flush=True)
    torch.save(found, file)


def load(file: Path) -> tuple[Network, LatentNetwork]:
    """The networks of a file."""
    found = torch.load(file, weights_only=True)
    networks = Network(**found["forecast"]["config"]), LatentNetwork(**found["latents"]["config"])
    for network, part in zip(networks, found.values(), strict=True):
        network.load_state_dict(part["state"])
    return networks[0].double().eval(), networks[1].eval()


def beside_exact(network: Network, decomposing: LatentNetwork, series: int) -> None:
    """Prints a line for each length of the past."""
    print(
        "| rows | CRPS / Bayes | likelihood / Bayes | energy / Bayes | level | slope | season | "
        "80 covers: forecast | level | slope | season | exact level | draws that count |"
    )
    print("|" + "---|" * 13)
    exact = Exact(STEPS + 8 + SEASON)
    for least, most in LENGTHS:
        generator = torch.Generator().manual_seed(least)
        drawn = curriculum().drawn(generator, Seasons(SEASON), series, 8 + SEASON)
        truth = truth_of(drawn, ("season",))
        unit = torch.rand(series, generator=generator)
        length = (least * torch.exp(unit * np.log(most / least))).long()
        steps = STEPS + 8
        y = drawn.y[:, :steps].double()
        seen = torch.arange(steps) >= steps - length[:, None]
        ahead = range(1, SEASON + 1)
        found = forecast([network], y, seen, Seasons(SEASON), ahead)
        paths = found.sample(200, generator)
        (smoothed,) = latents([decomposing], y, seen, Seasons(SEASON), ahead=SEASON, chunk=series)
        began = time.process_time()
        rows = [
            _compared(
                exact,
                drawn.y[i].double(),
                {k: v[i].double() for k, v in truth.items()},
                torch.arange(steps - int(length[i]), steps + SEASON),
                found,
                paths,
                smoothed,
                i,
                generator,
            )
            for i in range(series)
        ]
        t = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
        mean = {name: values.mean().item() for name, values in t.items()}
        error = [(mean[f"{part}"] / mean[f"exact {part}"]) ** 0.5 for part in PARTS]
        cells = [
            mean["crps"] / mean["exact crps"],
            mean["likelihood"] / mean["exact crps"],
            mean["energy"] / mean["exact energy"],
            *error,
            mean["cover"],
            *(mean[f"cover {part}"] for part in PARTS),
            mean["exact cover level"],
        ]
        print(
            f"| {least}-{most} | "
            + " | ".join(f"{x:.3f}" for x in cells)
            + f" | {t['effective'].min():.0f} |  ({time.process_time() - began:.0f} s)",
            flush=True,
        )


def _compared(
    exact: Exact,
    y: torch.Tensor,
    truth: dict[str, torch.Tensor],
    steps: torch.Tensor,
    found: Forecast,
    paths: torch.Tensor,
    smoothed: Latents,
    i: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """Scores of one series."""
    seen, ahead = steps[:-SEASON], steps[-SEASON:]
    answer = exact(y[seen], seen, steps, generator, SEASON)
    future = y[ahead]
    row = {"effective": answer.effective}
    knots = found.marginals.knots[i]
    row["crps"] = _crps_of_knots(knots, future).mean().item()
    row["exact crps"] = crps(future, answer.centre, answer.scale).mean().item()
    plugged = _likelihood(exact, y[seen], seen, steps)
    row["likelihood"] = crps(future, *(x[None] for x in plugged)).mean().item()
    row["cover"] = ((future > knots[:, 3]) & (future < knots[:, 11])).double().mean().item()
    for name, drawn in (("energy", paths[:, i]), ("exact energy", answer.future)):
        row[name] = float(energy(drawn.numpy()[:, None], future.numpy()[None]))
    low, high = smoothed.quantiles([0.1, 0.9])[i, steps].unbind(-1)
    for part in PARTS:
        k, true = smoothed.names.index(part), truth[part][steps]
        inside = slice(0, -SEASON)
        row[part] = (smoothed.mean[i, steps, k] - true)[inside].square().mean().item()
        row[f"exact {part}"] = (answer.mean[part] - true)[inside].square().mean().item()
        row[f"cover {part}"] = (
            ((true > low[:, k]) & (true < high[:, k]))[inside].double().mean().item()
        )
    ends = answer.draws["level"].quantile(torch.tensor([0.1, 0.9]).double(), 0)
    true = truth["level"][steps]
    row["exact cover level"] = ((true > ends[0]) & (true < ends[1])).double().mean().item()
    return row


def _crps_of_knots(knots: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """CRPS of quantile functions ``(H, Q)``, by 199 quantiles."""
    levels = torch.arange(1, 200, dtype=knots.dtype) / 200
    scores = torch.special.ndtri(levels)[:, None, None].expand(-1, 1, len(knots))
    error = y - QuantileFunction(knots[None]).at(scores)[:, 0]
    level = levels[:, None]
    return 2 * torch.maximum(level * error, (level - 1) * error).mean(0)


def _likelihood(
    exact: Exact, y: torch.Tensor, seen: torch.Tensor, steps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of what follows under the sizes of the greatest likelihood."""

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.tensor(x[None], requires_grad=True)
        value = -exact._fit(p, y, seen)[0].sum()
        (slope,) = torch.autograd.grad(value, p)
        return value.item(), slope[0].numpy()

    bounds = [(-8.0, 4.0)] * len(NAMES)
    starts = [np.log(x) for x in ([0.1, 0.01, 1.0, 0.05], [0.8, 0.05, 3.0, 0.2])]
    fits = [minimize(loss, x, jac=True, bounds=bounds, method="L-BFGS-B") for x in starts]
    best = min(fits, key=lambda fit: fit.fun)
    return exact.plugged(torch.tensor(best.x), y, seen, steps, SEASON)


def ranks(
    networks: Sequence[LatentNetwork], curriculum: Curriculum, seasons: Seasons | None
) -> None:
    """Prints how far ranks of the truth are from uniform."""
    generator = torch.Generator().manual_seed(77)
    first = networks[0]
    below: dict[str, list[torch.Tensor]] = {}
    said: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for _ in range(20):
        batch = draw(curriculum, first.components, generator, seasons)
        steps = batch.y.shape[1]
        (found,) = latents(
            networks,
            batch.y.double(),
            batch.observed,
            batch.seasons,
            ahead=int(batch.steps.max()) - steps + 1,
            chunk=len(batch.y),
        )
        at = batch.steps[:, :1]  # one step of each series: those of others are not independent
        lacks = {"season": batch.seasons.short < 2, "long_season": not batch.seasons.long}
        for name in ("level", "slope", *first.components, "signal", "noise"):
            if lacks.get(name):
                continue
            function = found.of(name)
            knots = function.knots.gather(1, at[..., None].expand(-1, -1, len(LEVELS)))
            score = QuantileFunction(knots).scores(batch.truth[name][:, :1].double())
            below.setdefault(name, []).append(torch.special.ndtr(score)[:, 0])
        read = batch.y.double(), batch.observed, batch.seasons
        posterior = parameters(networks, *read)
        for name, kind in PARAMETERS.items():
            value = batch.parameters[name].double()
            there = value > 0 if kind == "scale" else torch.ones_like(value, dtype=torch.bool)
            if not bool((value != value[0]).any()):  # of what is fixed there is nothing to learn
                continue
            score = QuantileFunction(posterior.of(name)[:, None]).scores(value[:, None])
            below.setdefault(name, []).append(torch.special.ndtr(score)[there, 0])
        for name in PRESENT:
            is_there = batch.present[name].double()
            if is_there.min() == is_there.max():
                continue
            said.setdefault(name, []).append((posterior.probability(name), is_there))
    print("| quantity | ranks from uniform, at most | p | 50 % covers | 80 % covers |")
    print("|---|---|---|---|---|")
    for name, parts in below.items():
        x = torch.cat(parts)
        if len(x) < 50:
            continue
        test = kstest(x.numpy(), "uniform")
        covers = [((x > (1 - c) / 2) & (x < (1 + c) / 2)).double().mean() for c in (0.5, 0.8)]
        print(
            f"| {name} | {test.statistic:.3f} | {test.pvalue:.2g} | {covers[0]:.3f} | "
            f"{covers[1]:.3f} |"
        )
    if said:
        _print_said(said)


def _print_said(said: dict[str, list[tuple[torch.Tensor, torch.Tensor]]]) -> None:
    """Prints how often there is what is said to be there."""
    print("\n| what is there | how often | said | where at most half is said | where more is |")
    print("|---|---|---|---|---|")
    for name, parts in said.items():
        p, true = (torch.cat(x) for x in zip(*parts, strict=True))
        few, many = (true[part].mean().item() for part in (p <= 0.5, p > 0.5))
        told = [p[part].mean().item() for part in (p <= 0.5, p > 0.5)]
        print(
            f"| {name} | {true.mean():.3f} | {p.mean():.3f} | {few:.3f}, said {told[0]:.3f} | "
            f"{many:.3f}, said {told[1]:.3f} |"
        )


if __name__ == "__main__":
    main()
