"""Classic series that statsmodels ships, as long frames of ``unique_id, ds, y``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "co2",
    "danish_money",
    "elec_equip",
    "elnino",
    "grunfeld",
    "interest_inflation",
    "macrodata",
    "nile",
    "sunspots",
]


def nile() -> "pd.DataFrame":
    r"""Yearly flow of the Nile at Aswan, 1871 to 1970, in :math:`10^8` m³.

    100 values with a drop after 1898. The standard example of a local level model; the first Aswan
    dam was built from 1898.

    Returns:
        ``unique_id`` (``"nile"``), ``ds`` (1 January), ``y``.

    Example:
        >>> nile().head(2)
          unique_id         ds       y
        0      nile 1871-01-01  1120.0
        1      nile 1872-01-01  1160.0

    References:
        The Problem of the Nile: Conditional Solution to a Changepoint Problem (Cobb, 1978).
    """
    data = _read("nile")
    return _long(_dates(data["year"]), {"nile": data["volume"]})


def co2() -> "pd.DataFrame":
    """Weekly carbon dioxide at Mauna Loa, 29 March 1958 to 29 December 2001, in ppm by volume.

    2284 Saturdays, of which 59 are missing (NaN): trend, season of 52.18 weeks, up to 18 missing
    weeks in a row in the early years.

    Returns:
        ``unique_id`` (``"co2"``), ``ds``, ``y``.

    References:
        Atmospheric CO2 Concentrations Derived from Flask Air Samples at Sites in the SIO Network
            (Keeling and Whorf, 2004).
    """
    data = _read("co2")
    return _long(_index(data), {"co2": data["co2"]})


def sunspots() -> "pd.DataFrame":
    """Yearly mean number of sunspots, 1700 to 2008.

    309 non-negative values with a cycle of about 11 years.

    Returns:
        ``unique_id`` (``"sunspots"``), ``ds`` (1 January), ``y`` (relative sunspot number).

    References:
        Solar data services of NOAA's National Geophysical Data Center.
    """
    data = _read("sunspots")
    return _long(_dates(data["YEAR"]), {"sunspots": data["SUNACTIVITY"]})


def elnino() -> "pd.DataFrame":
    """Monthly sea surface temperature of the region Niño 1+2, 1950 to 2010, in degrees Celsius.

    732 values with a strong season.

    Returns:
        ``unique_id`` (``"elnino"``), ``ds`` (first of the month), ``y``.

    References:
        ERSST.V3B of NOAA's National Weather Service.
    """
    import numpy as np

    data = _read("elnino")
    months = data.drop(columns="YEAR")
    year = np.repeat(data["YEAR"].to_numpy(), 12)
    month = np.tile(np.arange(1, 13), len(data))
    return _long(_dates(year, month), {"elnino": months.to_numpy().reshape(-1)})


def macrodata() -> "pd.DataFrame":
    """Twelve quarterly series of the economy of the United States, 1959 Q1 to 2009 Q3.

    203 values each: ``realgdp``, ``realcons``, ``realinv``, ``realgovt``, ``realdpi`` (billions of
    chained 2005 dollars, seasonally adjusted yearly rates), ``cpi`` (1982-84 = 100), ``m1``
    (nominal, billions of dollars), ``tbilrate`` (3-month Treasury bills, percent), ``unemp``
    (percent), ``pop`` (millions, at the end of the quarter), ``infl`` and ``realint`` (inflation
    and real interest, percent a year).

    Returns:
        ``unique_id`` (the variable), ``ds`` (first day of the quarter), ``y``.

    References:
        FRED, Federal Reserve Bank of St. Louis; unemployment from the Bureau of Labor Statistics;
            both read in 2009.
    """
    data = _read("macrodata")
    ds = _dates(data["year"], 3 * data["quarter"] - 2)
    return _long(ds, data.drop(columns=["year", "quarter"]))


def interest_inflation() -> "pd.DataFrame":
    """Quarterly inflation and long-term interest in West Germany, 1972 Q2 to 1998 Q4.

    107 values each: ``Dp`` is the change of the log GDP deflator, not seasonally adjusted; ``R``
    the nominal long-term interest rate, both as fractions (0.083 is 8.3 %).

    Returns:
        ``unique_id`` (``"Dp"`` or ``"R"``), ``ds`` (first day of the quarter), ``y``.

    References:
        New Introduction to Multiple Time Series Analysis (Lütkepohl, 2005), data set E6.
    """
    data = _read("interest_inflation")
    ds = _dates(data["year"], 3 * data["quarter"] - 2)
    return _long(ds, data.loc[:, ["Dp", "R"]])


def danish_money() -> "pd.DataFrame":
    """Five quarterly series of the demand for money in Denmark, 1974 Q1 to 1987 Q3, 55 values each.

    ``lrm`` (log real money), ``lry`` (log real income), ``lpy`` (log prices), ``ibo`` (bond rate),
    ``ide`` (deposit rate), rates as fractions.

    Returns:
        ``unique_id`` (the variable), ``ds`` (first day of the quarter), ``y``.

    References:
        Maximum Likelihood Estimation and Inference on Cointegration (Johansen and Juselius, 1990).
    """
    data = _read("danish_data")
    return _long(_index(data), data)


def elec_equip() -> "pd.DataFrame":
    """Monthly turnover of electrical equipment manufacturers in the Euro area, 1995 to May 2016.

    257 values, working-day adjusted but not seasonally adjusted, with the break of 2008.

    Returns:
        ``unique_id`` (``"elec_equip"``), ``ds`` (first of the month), ``y`` (index).

    References:
        Eurostat, STS.M.I7.W.TOVT.NS0016.4.000.
    """
    data = _read("elec_equip")
    return _long(_index(data), {"elec_equip": data.iloc[:, 0]})


def grunfeld() -> "pd.DataFrame":
    """Yearly gross investment of eleven American firms, 1935 to 1954: a small panel.

    Returns:
        ``unique_id`` (the firm), ``ds`` (1 January), ``y`` (gross investment), ``value`` (market
        value at the year's end), ``capital`` (stock of plant and equipment), all in millions of
        1947 dollars.

    References:
        The Grunfeld Data at 50 (Kleiber and Zeileis, 2010).
    """
    import pandas as pd

    data = _read("grunfeld")
    columns = {
        "unique_id": data["firm"].astype(str),
        "ds": _dates(data["year"]),
        "y": data["invest"],
        "value": data["value"],
        "capital": data["capital"],
    }
    return pd.DataFrame(columns).reset_index(drop=True)


def _read(name: str) -> "pd.DataFrame":
    from importlib import import_module

    # the data modules alone: statsmodels.api would import every model as well
    return import_module(f"statsmodels.datasets.{name}.data").load_pandas().data


def _dates(year: object, month: object = 1) -> "pd.DatetimeIndex":
    import pandas as pd

    parts = pd.DataFrame({"year": year, "month": month, "day": 1}).astype("int64")
    return pd.DatetimeIndex(pd.to_datetime(parts))


def _index(data: "pd.DataFrame") -> "pd.DatetimeIndex":
    import pandas as pd

    return pd.DatetimeIndex(data.index)


def _long(ds: "pd.DatetimeIndex", columns: "pd.DataFrame | dict[str, object]") -> "pd.DataFrame":
    """Stacks columns that share their dates, one series after the other."""
    import numpy as np
    import pandas as pd

    names = list(columns)
    values = np.concatenate([np.asarray(columns[name], dtype=np.float64) for name in names])
    ids = np.repeat(np.array(names, dtype=object), len(ds))
    return pd.DataFrame(
        {
            "unique_id": pd.Series(ids).astype(str),
            "ds": np.tile(ds.to_numpy(), len(names)),
            "y": values,
        }
    )
