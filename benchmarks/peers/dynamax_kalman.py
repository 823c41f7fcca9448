"""The log likelihood of dynamax, compiled; see ``turns.py``. It takes no missing data.

References:
    Dynamax: A Python package for probabilistic state space modeling with JAX (Linderman et al.,
    2025).
"""

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
from dynamax.linear_gaussian_ssm import lgssm_filter
from dynamax.linear_gaussian_ssm.inference import make_lgssm_params
from turns import Arrays, Evaluate, matrices, serve

jax.config.update("jax_enable_x64", True)


def prepare(model: Arrays, free: list[str], gradient: bool) -> Evaluate:
    """Compiles the function at the first call."""
    fixed = {k: jnp.asarray(v) for k, v in model.items() if k not in ("y", "observed", *free)}
    theta = {name: jnp.asarray(model[name]) for name in free}
    y = jnp.asarray(model["y"])
    own = "log_variances" in free and theta["log_variances"].ndim > 1

    def one(theta: dict[str, Any], y: jax.Array) -> jax.Array:
        m = matrices({**fixed, **theta}, jnp)
        zero = jnp.zeros(len(m["P0"]))
        params = make_lgssm_params(zero, m["P0"], m["F"], m["Q"], m["H"], m["R"])
        return lgssm_filter(params, y).marginal_loglik

    several = jax.vmap(one, in_axes=(0 if own else None, 0))

    def total(theta: dict[str, Any], y: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = several(theta, y)
        return values.sum(), values

    run = jax.jit(jax.value_and_grad(total, has_aux=True) if gradient else several)

    def evaluate() -> tuple[Any, Any]:
        found = jax.block_until_ready(run(theta, y))
        return (found[0][1], found[1]) if gradient else (found, None)

    return evaluate


if __name__ == "__main__":
    serve(f"dynamax {version('dynamax')}, jax {jax.__version__}", prepare)
