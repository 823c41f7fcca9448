"""Tables of text as they are written elsewhere: separators, decimals, encodings, dates."""

import io

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from seqlatent.forecasting.cli import app
from seqlatent.forecasting.cli.dialect import Dialect, dialect_of, formats_of

DAYS = pd.date_range("2024-01-05", periods=27)
NAIVE = ["--h", "2", "--model", "seasonal_naive", "--season-length", "7"]
COLUMNS = ("unique_id", "ds", "y")


def csv(sep=",", point=".", date="%Y-%m-%d", id="a", head="unique_id,ds,y", end="\n"):
    rows = [
        [id, day.strftime(date), str(value).replace(".", point)]
        for day, value in zip(DAYS, np.arange(27) % 7 + 0.5, strict=True)
    ]
    lines = [head.replace(",", sep), *(sep.join(row) for row in rows)]
    return end.join(lines) + end


@pytest.fixture
def forecast(tmp_path):
    def run(data, *options, name="data.csv", status=0):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        result = CliRunner().invoke(app, ["forecast", str(path), *NAIVE, *map(str, options)])
        assert result.exit_code == status, (result.output, result.stderr)
        if status:
            return " ".join(result.stderr.split())
        found = pd.read_csv(io.StringIO(result.stdout), dtype={"unique_id": str})
        return found, result.stderr

    return run


def right(found, id="a"):
    return found["unique_id"].tolist() == [id] * 2 and found["seasonal_naive"].tolist() == [
        6.5,
        0.5,
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (csv(), ""),
        (csv(sep=";"), "semicolons between columns"),
        (csv(sep=";", point=","), "semicolons between columns, decimal commas"),
        (csv(sep="\t"), "tabs between columns"),
        (csv(sep="\t", point=","), "tabs between columns, decimal commas"),
        (csv(sep="|"), "bars between columns"),
        (csv(head="unique_id, ds, y"), "blanks after separators"),
        (csv(sep=", ", head="unique_id,ds,y"), "blanks after separators"),
        (csv().encode("utf-16"), "encoding utf-16"),
        (b"\xef\xbb\xbf" + csv(sep=";").encode(), "semicolons"),
        (csv(end="\r\n"), ""),
    ],
)
def test_a_table_tells_how_it_is_written(forecast, data, words):
    found, said = forecast(data)
    assert right(found)
    assert f"read with {words}" in said if words else "read with" not in said


def test_options_say_how_a_table_is_written(forecast):
    options = ["--sep", ":", "--decimal", ",", "--encoding", "cp1252", "--date-format", "%d.%m.%y"]
    data = csv(sep=":", point=",", date="%d.%m.%y", id="Köln").encode("cp1252")
    found, said = forecast(data, *options, name="data.txt")
    assert right(found, "Köln")
    assert "':' between columns, decimal commas, encoding cp1252" in said
    assert found["ds"].tolist() == ["2024-02-01", "2024-02-02"]
    assert right(forecast(csv(sep="\t"), "--sep", "tab", name="data.tsv")[0])
    assert right(forecast(csv(date="%Y%m%d"), "--date-format", "%Y%m%d")[0])
    assert right(forecast(csv(date="%m%d%Y"), "--date-format", "%m%d%Y")[0])  # begins with zeros


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (csv(date="%d.%m.%Y"), (), "--date-format '%d.%m.%Y', or use ISO 8601"),
        (csv(date="%m/%d/%Y"), (), "--date-format '%m/%d/%Y'"),
        (csv(date="week %U of %Y"), (), "(ISO 8601), or say how they are written"),
        (csv(date="%d.%m.%Y"), ("--date-format", "%m/%d/%Y"), "written as %m/%d/%Y, found '05.01."),
        (csv(id="Köln").encode("latin-1"), (), "no UTF-8 text"),
        (csv(id="Köln").encode("latin-1"), (), "--encoding cp1252"),
        (csv(end="\r"), (), "line ends of old Macs"),
        (csv(head="id,ds,z"), (), "found 'id', 'ds', 'z' (parted at commas; see --sep)"),
        (csv(sep=";", head="id,ds,z"), (), "(parted at semicolons; see --sep)"),
        (csv(point=","), (), "line 2: expected 3 cells between commas, as the header has, found 4"),
        (csv().replace("5.5", '"5,5"'), (), "If that is a decimal comma, say --decimal ','."),
        (csv().replace("5.5", '"1,234.5"'), (), "line 7: expected a number, found '1,234.5'"),
        (
            csv(sep=";", point=",").replace("5,5", "1.234,5"),
            (),
            "expected a number with a decimal comma as in other cells, found '1.234,5'",
        ),
        (
            csv(sep=";").replace("5.5", "5,5"),
            (),
            "line 7: expected a number, found '5,5'",
        ),
    ],
)
def test_errors_speak_of_how_a_table_was_read(forecast, data, options, words):
    assert words in forecast(data, *options, status=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sep", ";;"), "expected one character"),
        (("--decimal", "'"), "expected . or ,"),
        (("--sep", ",", "--decimal", ","), "two characters that differ"),
        (("--encoding", "utf-99"), "unknown encoding"),
    ],
)
def test_options_that_are_none(forecast, options, words):
    assert words in forecast(csv(), *options, status=2)


def test_backtests_and_further_tables_are_read_alike(tmp_path):
    data, static = tmp_path / "data.csv", tmp_path / "static.csv"
    data.write_text(csv(sep=";", point=","))
    static.write_text("unique_id;size\na;1,5\n")
    args = ["backtest", str(data), *NAIVE, "--static", str(static)]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.stderr
    assert "data.csv: read with semicolons between columns, decimal commas" in result.stderr
    assert "static.csv: read with semicolons" in result.stderr


def test_a_dialect_is_told_by_names_before_counts():
    text = "unique_id;ds;y\n" + "".join(f"a, b, c, d{i};2024-01-01;1,5\n" for i in range(3))
    found = dialect_of(text, Dialect(), COLUMNS, COLUMNS[:2])
    assert (found.sep, found.decimal, found.header) == (";", ",", COLUMNS)
    assert dialect_of("", Dialect(), COLUMNS, COLUMNS[:2]).header == ()


def test_formats_that_dates_may_have():
    assert formats_of(["31.01.2024", "01.02.2024"])[0] == "%d.%m.%Y"
    assert formats_of(["01/02/2024"])[:2] == ["%d/%m/%Y", "%m/%d/%Y"]
    assert formats_of(["some", "day"]) == []
