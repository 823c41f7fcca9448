"""Nearly exact inference of linear Gaussian states that are not observed as such."""

from seqlatent.inference.approximate.extended import Extended
from seqlatent.inference.approximate.laplace import Laplace
from seqlatent.inference.approximate.matching import MomentMatching
from seqlatent.inference.approximate.sites import Approximate
from seqlatent.inference.approximate.unscented import Unscented

__all__ = ["Approximate", "Extended", "Laplace", "MomentMatching", "Unscented"]
