"""Masks of tissue that users bring."""

import numpy as np
import pytest
from PIL import Image

from proportion_ssl.slides.patches import mask_file
from proportion_ssl.slides.patches.mask_file import read_tissue_mask


def test_pictures_and_arrays(tmp_path):
    mask = np.array([[0, 255, 1], [0, 0, 7]], dtype=np.uint8)
    for mode, name in (("L", "gray.png"), ("P", "palette.png"), ("1", "binary.png")):
        Image.fromarray(mask if mode != "1" else (mask > 0) * np.uint8(255)).convert(mode).save(
            tmp_path / name
        )
    for given in (mask, mask > 0, tmp_path / "gray.png", str(tmp_path / "palette.png")):
        assert read_tissue_mask(given).tolist() == (mask > 0).tolist()
    assert read_tissue_mask(tmp_path / "binary.png").tolist() == (mask > 0).tolist()


def test_what_is_no_mask(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "color.png")
    with pytest.raises(ValueError, match="gray picture"):
        read_tissue_mask(tmp_path / "color.png")
    for wrong in (np.zeros((2, 2, 3)), np.zeros((0, 2)), np.array([["a"]])):
        with pytest.raises(ValueError, match="shape"):
            read_tissue_mask(wrong)
    monkeypatch.setattr(mask_file, "MAX_PIXELS", 3)
    Image.new("L", (2, 2)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match="at most 3"):
        read_tissue_mask(tmp_path / "large.png")
