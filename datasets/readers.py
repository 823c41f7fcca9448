"""Readers of the source files of benchmark sets: from bytes to the frame that is stored.

One function a set, listed in ``READERS``. A set that is not listed has sources that need other
software to be read (R's data format, thousands of small files), and comes as a parquet file only.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

Files = Sequence[bytes]

CURRENCIES = (
    "australia",
    "united_kingdom",
    "canada",
    "switzerland",
    "china",
    "japan",
    "new_zealand",
    "singapore",
)
SOLAR_WEATHER = {
    "SolarRadiationGlobalAt0": "radiation_global",
    "SolarRadiationDirectAt0": "radiation_direct",
    "SolarRadiationDiffuseAt0": "radiation_diffuse",
    "clearsky_global": "clearsky_global",
    "sunposition_solarHeight": "sun_height",
    "TemperatureAt0": "temperature",
    "TotalCloudCoverAt0": "cloud_cover",
    "RelativeHumidityAt0": "humidity",
}


def _csv(content: bytes, **options: object) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(io.BytesIO(content), **options)  # type: ignore


def _narrow(frame: "pd.DataFrame", dtype: str, columns: Sequence[str]) -> "pd.DataFrame":
    return frame.astype(dict.fromkeys(columns, dtype))


def _bike_sharing(files: Files) -> "pd.DataFrame":
    import pandas as pd

    data = _csv(files[0])
    ds = pd.to_datetime(data["dteday"]) + pd.to_timedelta(data["hr"], unit="h")
    data = data.drop(columns=["instant", "dteday"])
    data.insert(0, "ds", ds.astype("datetime64[us]"))
    data = _narrow(data, "int8", list(data.columns[1:9]))
    data = _narrow(data, "float32", ["temp", "atemp", "hum", "windspeed"])
    return _narrow(data, "int16", ["casual", "registered", "cnt"])


def _dated(files: Files) -> "pd.DataFrame":
    """A table with a column ``date``, and numbers beside it."""
    import pandas as pd

    compression = "gzip" if files[0][:2] == b"\x1f\x8b" else None
    data = _csv(files[0], compression=compression).rename(columns={"date": "ds"})
    data["ds"] = pd.to_datetime(data["ds"]).astype("datetime64[us]")
    return _narrow(data, "float64", list(data.columns[1:]))


def _electricity_14d(files: Files) -> "pd.DataFrame":
    """Overlapping windows of 192 hours, seven a client and one day apart, put together again."""
    import numpy as np
    import pandas as pd

    windows = np.load(io.BytesIO(files[0]), allow_pickle=False)
    windows = windows.reshape(-1, 7, 192)
    values = np.concatenate([windows[:, 0], *(windows[:, i, 168:] for i in range(1, 7))], axis=1).T
    ds = pd.date_range("2014-08-25", periods=len(values), freq="h", unit="us")
    columns = [f"MT_{i:03d}" for i in range(1, values.shape[1] + 1)]
    frame = pd.DataFrame(values, columns=columns)
    frame.insert(0, "ds", ds)
    return frame


def _series_frame(files: Files) -> "pd.DataFrame":
    """A long table that already has the names ``unique_id, ds, y``."""
    import pandas as pd

    data = _csv(files[0]).rename(columns={"unique_id": "series"})
    data["series"] = data["series"].astype("category")
    data["ds"] = pd.to_datetime(data["ds"]).astype("datetime64[us]")
    return data


def _epf_short(files: Files) -> "pd.DataFrame":
    data = _series_frame(files).rename(columns={"Exogenous1": "exog1", "Exogenous2": "exog2"})
    return data.loc[:, ["series", "ds", "y", "exog1", "exog2"]]


def _m5_small(files: Files) -> "pd.DataFrame":
    data = _narrow(_series_frame(files), "float32", ["sell_price"])
    data = _narrow(data, "int8", [c for c in data.columns if c.startswith("event_")])
    return _narrow(data, "int16", ["y"])


def _exchange_rate(files: Files) -> "pd.DataFrame":
    import numpy as np

    data = _csv(files[0], header=None, names=list(CURRENCIES), compression="gzip").astype("float32")
    row = np.arange(len(data), dtype=np.int32)
    part = np.select([row <= 6070, row <= 6220], ["train", "test"], "rest")
    data.insert(0, "part", part.astype(object))
    data["part"] = data["part"].astype(str)
    data.insert(0, "t", row)
    return data


def _german_solar_2(files: Files) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    plants = []
    for name, content in zip(("pv_06", "pv_21"), files, strict=True):
        data = _csv(content, sep=";")
        hour = (data["hour_of_day"] * 21).round().astype("int8")
        # the least time that fits the hours of the day: never 0, so a day where they repeat
        gap = (hour.astype("int32").diff() - 1) % 24 + 1
        plant = {
            "series": name,
            "t": np.arange(len(data), dtype=np.int32),
            "elapsed_h": gap.fillna(0).cumsum().astype("int32"),
            "hour": hour,
            "month": ((data["month_of_year"] * 11).round() + 1).astype("int8"),
            "power": data["power_normed"].astype("float32"),
        }
        plant |= {new: data[old].astype("float32") for old, new in SOLAR_WEATHER.items()}
        plants.append(pd.DataFrame(plant))
    data = pd.concat(plants, ignore_index=True)
    data["series"] = data["series"].astype("category")
    return data


def _labelled(files: Files) -> "pd.DataFrame":
    """Two ``.ts`` files: after ``@data``, one case a line, ``value,value,...:label``."""
    import numpy as np
    import pandas as pd

    parts = []
    for split, content in zip(("train", "test"), files, strict=True):
        _, _, body = content.decode().partition("@data")
        rows = [line.rsplit(":", 1) for line in body.split()]
        values = np.array([row.split(",") for row, _ in rows], dtype=np.float64)
        frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
        frame.insert(0, "label", [label for _, label in rows])
        frame.insert(0, "split", split)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _piano(files: Files) -> "pd.DataFrame":
    """A MATLAB file of piano rolls, one array of 88 keys a piece."""
    import numpy as np
    import pandas as pd
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(files[0]))
    keys = [f"p{pitch}" for pitch in range(21, 109)]
    parts, first = [], 0
    for split in ("train", "valid", "test"):
        rolls = list(content[split + "data"][0])
        lengths = [len(roll) for roll in rolls]
        frame = pd.DataFrame(np.concatenate(rolls) != 0, columns=keys)
        frame.insert(0, "t", np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]))
        pieces = np.arange(first, first + len(rolls), dtype=np.int16)
        frame.insert(0, "seq", np.repeat(pieces, lengths))
        frame.insert(0, "split", split)
        parts.append(frame)
        first += len(rolls)
    data = pd.concat(parts, ignore_index=True)
    data["split"] = data["split"].astype("category")
    return data


def _m4(files: Files) -> "pd.DataFrame":
    """Two tables with one series a row, name first: the training part and the test part."""
    import numpy as np
    import pandas as pd

    parts = []
    for content, test in zip(files, (False, True), strict=True):
        wide = _csv(content, index_col=0)
        values = wide.to_numpy(np.float64)
        lengths = np.isfinite(values).sum(1)  # the rows are filled up on the right
        frame = pd.DataFrame({"order": np.repeat(np.arange(len(wide)), lengths)})
        frame["series"] = np.repeat(wide.index.to_numpy(), lengths)
        frame["y"] = values[np.isfinite(values)]
        frame["test"] = test
        parts.append(frame)
    data = pd.concat(parts).sort_values("order", kind="stable", ignore_index=True)
    data["t"] = data.groupby("order").cumcount().astype("int32")
    data["series"] = data["series"].astype("category")
    return data.loc[:, ["series", "t", "y", "test"]]


def _stock(files: Files) -> "pd.DataFrame":
    import numpy as np

    data = _csv(files[0]).astype("float64")
    data.insert(0, "t", np.arange(len(data), dtype=np.int32))
    return data


READERS: dict[str, Callable[[Files], "pd.DataFrame"]] = {
    "bike_sharing": _bike_sharing,
    "electricity_14d": _electricity_14d,
    "epf_short": _epf_short,
    "etth1": _dated,
    "ettm1": _dated,
    "exchange_rate": _exchange_rate,
    "german_solar_2": _german_solar_2,
    "gunpoint": _labelled,
    "illness": _dated,
    "italy_power_demand": _labelled,
    "jsb_chorales": _piano,
    "m4_hourly": _m4,
    "m4_weekly": _m4,
    "m5_small": _m5_small,
    "musedata": _piano,
    "nottingham": _piano,
    "stock": _stock,
}
