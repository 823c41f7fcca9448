"""The Kalman filter on factors of covariances: nothing is subtracted, so no digit is lost."""

from jaxtyping import Bool, Float
from torch import Tensor

from seqlatent.kalman.moments.covariance_factors import by_factors
from seqlatent.kalman.moments.sequential import Filtered
from seqlatent.kalman.system import system


def filter_square_root(
    F: Float[Tensor, "*f K K"],
    b: Float[Tensor, "*b K"],
    Q: Float[Tensor, "*q K K"],
    m0: Float[Tensor, "*m K"],
    P0: Float[Tensor, "*p K K"],
    H: Float[Tensor, "*h D K"],
    d: Float[Tensor, "*d D"],
    R: Float[Tensor, "*r D D"],
    y: Float[Tensor, "*y D"],
    observed: Bool[Tensor, "*o D"],
) -> Filtered:
    r"""Kalman filter that carries factors of covariances and turns them.

    .. math::
        \begin{bmatrix} H P^{1/2} & R^{1/2} \\ P^{1/2} & 0 \end{bmatrix} \Theta =
        \begin{bmatrix} S^{1/2} & 0 \\ k S^{1/2} & P_+^{1/2} \end{bmatrix}, \qquad
        \begin{bmatrix} F P_+^{1/2} & Q^{1/2} \end{bmatrix} \Theta' =
        \begin{bmatrix} P_-^{1/2} & 0 \end{bmatrix}

    with orthogonal :math:`\Theta`, from QR decompositions. What it returns is what :func:`filter`
    returns, in exact arithmetic. It is for problems of bad condition: a vast prior beside sharp
    observations, nearly collinear rows of H, single precision. Every covariance is positive
    semi-definite by construction, and the evidence is read off the factor of S. So a first state of
    which nothing is known may have a variance of 1e12. It takes two to three times as long, and its
    gradient is that of :func:`filter`.

    Args:
        F: Transition into step t; unused at the first step, but finite. So are ``b`` and ``Q``.
        b: Offset of the transition.
        Q: Covariance of the transition, possibly singular.
        m0: Mean of the first state.
        P0: Covariance of the first state, possibly singular.
        H: Loadings.
        d: Offset of the observation.
        R: Covariance of the observation noise; singular is fine while the innovation's is not.
        y: Observations.
        observed: Which of them count.

    Shape:
        As in :func:`filter`.

    Raises:
        ValueError: If a covariance is not positive semi-definite, or an innovation has none.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> model = (one, zero, one, zero, 1e7 * one, one, zero, 1e-6 * one)
        >>> filtered = seqlatent.kalman.filter_square_root(*model, y, observed)
        >>> filtered.mean.T, filtered.cov.flatten()
        (tensor([[1.0000, 2.0000]]), tensor([1.0000e-06, 1.0000e-06]))

    References:
        Linear Estimation (Kailath, Sayed & Hassibi, 2000), chapter 12.
        Stability of Householder QR Factorization for Weighted Least Squares Problems (Cox &
        Higham, 1998), on the order of the columns.
    """
    s = system(F, b, Q, m0, P0, H, d, R, y, observed)
    moments = by_factors(s)
    mean, predicted_mean = (x.movedim(0, -2) for x in (moments.mean, moments.predicted_mean))
    shape = (*mean.shape, mean.shape[-1])
    cov, predicted_cov = (
        x.movedim(0, -3).expand(shape) for x in (moments.cov, moments.predicted_cov)
    )
    evidence = moments.log_evidence.movedim(0, -1)
    return Filtered(mean, cov, predicted_mean, predicted_cov, evidence)
