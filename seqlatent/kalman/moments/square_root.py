"""The Kalman filter on factors of covariances: nothing is subtracted, so no digit is lost."""

from torch import Tensor

from seqlatent.kalman.aligned import aligned
from seqlatent.kalman.moments.covariance_factors import by_factors
from seqlatent.kalman.moments.sequential import Filtered, filter_result
from seqlatent.kalman.system import LinearGaussianSystem


def filter_square_root(system: LinearGaussianSystem, y: Tensor, observed: Tensor) -> Filtered:
    r"""Kalman filter that carries factors of covariances and turns them.

    .. math::
        \begin{bmatrix} H P^{1/2} & R^{1/2} \\ P^{1/2} & 0 \end{bmatrix} \Theta =
        \begin{bmatrix} S^{1/2} & 0 \\ k S^{1/2} & P_+^{1/2} \end{bmatrix}, \qquad
        \begin{bmatrix} F P_+^{1/2} & Q^{1/2} \end{bmatrix} \Theta' =
        \begin{bmatrix} P_-^{1/2} & 0 \end{bmatrix}

    with orthogonal :math:`\Theta`, from QR decompositions. What it returns is what :func:`filter`
    returns, in exact arithmetic. It is for problems of bad condition: a large prior variance beside
    sharp observations, nearly collinear rows of H, single precision. Every covariance is positive
    semi-definite by construction, and the evidence is read off the factor of S. So a first state of
    which nothing is known may have a variance of 1e12. It takes two to three times as long, and its
    gradient is that of :func:`filter`.

    Args:
        system: The model, without diffuse coordinates.
        y: Observations.
        observed: Which of them count.

    Shape:
        As in :func:`filter`.

    Raises:
        ValueError: If a covariance is not positive semi-definite, or an innovation has none.

    Example:
        >>> one, zero = torch.ones(1, 1), torch.zeros(1)
        >>> y, observed = torch.tensor([[1.0], [2.0]]), torch.tensor([[True], [True]])
        >>> walk = (one, zero, one, zero, 1e7 * one, one, zero, 1e-6 * one)
        >>> walk = seqlatent.kalman.LinearGaussianSystem(*walk)
        >>> filtered = seqlatent.kalman.filter_square_root(walk, y, observed)
        >>> filtered.mean.T, filtered.cov.flatten()
        (tensor([[1.0000, 2.0000]]), tensor([1.0000e-06, 1.0000e-06]))

    References:
        Linear Estimation (Kailath, Sayed & Hassibi, 2000), chapter 12.
        Stability of Householder QR Factorization for Weighted Least Squares Problems (Cox &
        Higham, 1998), on the order of the columns.
    """
    if system.diffuse is not None and bool(system.diffuse.any()):
        raise ValueError(
            "filter_square_root takes a first state of finite variance, found diffuse coordinates; "
            "use kalman.filter, or give them a variance, which may be as large as 1e12."
        )
    return filter_result(by_factors(aligned(system.observing(y, observed))))
