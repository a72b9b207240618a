"""Tables of recorded percentages for new slides."""

import pytest

from proportion_ssl.segmenter.records import read_records


def test_names_and_separators(tmp_path):
    path = tmp_path / "records.csv"
    path.write_text("slide;solid;acinar;age\nfolder/a.svs;30;70;60\nb;;100;\n")
    table = read_records(path, ["acinar", "solid"])
    assert table.index.tolist() == ["a", "b"]
    assert table.to_numpy().tolist() == [[0.7, 0.3], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,acinar\na,100\n", "no column 'solid'"),
        ("slide,acinar,solid\na,50,50\nb,50,40\n", "line 3: .*'b'"),
        ("slide,acinar,solid\na,0.5,0.5\n", "sum to 100"),
        ("slide,acinar,solid\na,-5,105\n", "line 2"),
        ("slide,acinar,solid\na,x,100\n", "line 2"),
        ("slide,acinar,solid\na.svs,50,50\na,50,50\n", "several rows of a"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = tmp_path / "records.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_records(path, ["acinar", "solid"])
