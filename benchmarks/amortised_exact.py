"""What does it cost not to know the model? Networks beside the Kalman filter that knows it.

    python benchmarks/amortised_exact.py

Series are drawn from a local linear trend with a season and noise, of variances that differ from
series to series. The exact forecast knows them; the networks have never seen the series. Energy
scores of joint paths, quantile loss, and what 80 % intervals of values, sums and peaks cover.
"""

import argparse

import numpy as np
import torch
from origins import covers, energy

from seqlatent import kalman
from seqlatent.amortised import Seasons, forecast, load_networks

PATHS = 400


def system(series: int, season: int, generator: torch.Generator) -> kalman.LinearGaussianSystem:
    """Local linear trends with a season, each with variances of its own, from a diffuse start."""
    K = season + 1
    F = torch.zeros(K, K, dtype=torch.float64)
    F[0, 0] = F[0, 1] = F[1, 1] = 1
    F[2, 2:] = -1
    F[torch.arange(3, K), torch.arange(2, K - 1)] = 1
    H = torch.zeros(1, K, dtype=torch.float64)
    H[0, 0] = H[0, 2] = 1

    def size(low: float, high: float) -> torch.Tensor:
        unit = torch.rand(series, dtype=torch.float64, generator=generator)
        return low * torch.exp(np.log(high / low) * unit)

    Q = torch.zeros(series, 1, K, K, dtype=torch.float64)
    Q[:, 0, 0, 0] = size(0.05, 1.5) ** 2
    Q[:, 0, 1, 1] = size(0.003, 0.1) ** 2
    Q[:, 0, 2, 2] = size(0.02, 0.3) ** 2
    start = torch.tensor([0.0, 0.0], dtype=torch.float64)
    P0 = torch.diag(torch.cat([torch.tensor([100.0, 0.04]), torch.full((season - 1,), 9.0)]))
    zero = torch.zeros(K, dtype=torch.float64)
    d, R = start[:1], torch.ones(1, 1, dtype=torch.float64)
    return kalman.LinearGaussianSystem(F, zero, Q, zero, P0.double(), H, d, R)


def draw(
    s: kalman.LinearGaussianSystem, z: torch.Tensor, steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Values of the next steps from states ``(..., B, K)``."""
    found = []
    root = torch.linalg.cholesky(s.Q[:, 0] + 1e-18 * torch.eye(s.latent_dim, dtype=s.Q.dtype))
    for _ in range(steps):
        shock = torch.randn(z.shape, dtype=z.dtype, generator=generator)
        z = z @ s.F.T + (root @ shock[..., None])[..., 0]
        noise = torch.randn(z.shape[:-1], dtype=z.dtype, generator=generator)
        found.append((z @ s.H.T)[..., 0] + noise)
    return torch.stack(found, -1)


def main() -> None:
    """Prints a line for each length of the past."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=400)
    parser.add_argument("--season", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    m, h = given.season, 2 * given.season
    print("| rows | energy beside exact | quantile loss | 80 | sum 80 | peak 80 | exact 80 |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for rows in (3 * m, 6 * m, 12 * m):
        generator = torch.Generator().manual_seed(rows)
        s = system(given.series, m, generator)
        shape = (given.series, s.latent_dim)
        first = torch.randn(shape, dtype=torch.float64, generator=generator)
        y = draw(s, first @ torch.linalg.cholesky(s.P0).T, rows + h, generator)
        past, future = y[:, :rows], y[:, rows:].numpy()
        last = kalman.filter(s, past[..., None], torch.ones_like(past, dtype=torch.bool)[..., None])
        mean, cov = last.mean[:, -1], last.cov[:, -1]
        root = torch.linalg.cholesky(cov + 1e-12 * torch.eye(s.latent_dim, dtype=cov.dtype))
        unit = torch.randn(PATHS, *mean.shape, dtype=mean.dtype, generator=generator)
        exact = draw(s, mean + (root @ unit[..., None])[..., 0], h, generator).numpy()
        seen = torch.ones_like(past, dtype=torch.bool)
        found = forecast(load_networks(), past, seen, Seasons(m), range(1, h + 1))
        paths = found.sample(PATHS, generator).numpy()
        rng = np.random.default_rng(0)
        scale = exact.std(0).mean(1)[None, :, None]
        score = [energy(x / scale, future / scale[0]) for x in (paths, exact)]
        loss = [pinball(x, future) for x in (paths, exact)]
        ratios.append(score[0] / score[1])
        print(
            f"| {rows} | {ratios[-1]:.3f} | {loss[0] / loss[1]:.3f} | "
            f"{covers(paths, future, rng):.3f} | {covers(paths.sum(2), future.sum(1), rng):.3f} | "
            f"{covers(paths.max(2), future.max(1), rng):.3f} | {covers(exact, future, rng):.3f} |",
            flush=True,
        )
    print(
        f"The networks' joint paths score {min(ratios):.2f} to {max(ratios):.2f} times the exact."
    )


def pinball(paths: np.ndarray, y: np.ndarray) -> float:
    """Mean quantile loss of the levels .1 to .9."""
    levels = np.arange(1, 10) / 10
    error = y - np.quantile(paths, levels, axis=0)
    level = levels[:, None, None]
    return float(np.maximum(level * error, (level - 1) * error).mean())


if __name__ == "__main__":
    main()
