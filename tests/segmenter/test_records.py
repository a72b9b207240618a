"""Tables of recorded percentages for new slides."""

import pytest

from proportion_ssl.segmenter.records import read_records


def test_names_and_separators(tmp_path):
    path = tmp_path / "records.csv"
    path.write_text("slide;solid;acinar;age\nfolder/a.svs;30;70;60\nb;;100;\nc;;;\nd;<5;>90;\n")
    records = read_records(path, ["acinar", "solid"])
    assert list(records) == ["a", "b", "d"], "a row without a percentage is no record"
    for name, shares in (("a", [0.7, 0.3]), ("b", [1.0, 0.0])):
        assert records[name].index.tolist() == ["acinar", "solid"]
        for part in ("share", "lower", "upper"):
            assert records[name][part].tolist() == shares
    assert records["d"]["lower"].tolist() == [0.9, 0.0]
    assert records["d"]["upper"].tolist() == [1.0, 0.05]
    assert abs(records["d"]["share"].sum() - 1) < 1e-9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,acinar\na,100\n", "no column 'solid'"),
        ("slide,acinar,solid\na,50,50\nb,50,40\n", "line 3: .*'b'"),
        ("slide,acinar,solid\na,0.5,0.5\n", "line 2: .*sum to 1; these look like fractions"),
        ("slide,acinar,solid\na,-5,105\n", "line 2"),
        ("slide,acinar,solid\na,x,100\n", "line 2"),
        ("slide,acinar,solid\na.svs,50,50\na,50,50\n", r"'a' occurs twice \(lines 2 and 3\)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    path = tmp_path / "records.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_records(path, ["acinar", "solid"])


def test_an_unknown_share_is_no_record_to_segment_with(tmp_path):
    path = tmp_path / "records.csv"
    path.write_text("slide,acinar,solid\na,100,?\n")
    with pytest.raises(ValueError, match="line 2: slide 'a' has an unknown share"):
        read_records(path, ["acinar", "solid"])
