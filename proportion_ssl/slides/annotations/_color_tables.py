"""Values of the masks of public data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proportion_ssl.colors import Color

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class ColorTable:
    """Classes of the masks of a data set, in one channel of numbers or in colors.

    ``background`` is the value of pixels without a label, as a number and as a color.
    """

    numbers: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[Color, str] = field(default_factory=dict)
    background: tuple[int, Color] = (0, BLACK)


_BCSS = (
    *(
        "tumor",
        "stroma",
        "lymphocytic_infiltrate",
        "necrosis_or_debris",
        "glandular_secretions",
        "blood",
    ),
    *(
        "exclude",
        "metaplasia_NOS",
        "fat",
        "plasma_cells",
        "other_immune_infiltrate",
        "mucoid_material",
    ),
    *(
        "normal_acinus_or_duct",
        "lymphatics",
        "undetermined",
        "nerve",
        "skin_adnexa",
        "blood_vessel",
    ),
    *("angioinvasion", "dcis", "other"),
)

COLOR_TABLES = {
    # growth patterns of lung adenocarcinoma, Zenodo 10016027
    "ANORAK": ColorTable(
        colors={
            (0, 0, 255): "lepidic",
            (255, 255, 0): "papillary",
            (255, 0, 0): "acinar",
            (0, 255, 255): "cribriform",
            (255, 0, 255): "micropapillary",
            (136, 0, 0): "solid",
        }
    ),
    # breast cancer, gtruth_codes.tsv of the data set; 0 is outside of the outlined area
    "BCSS": ColorTable(numbers=dict(enumerate(_BCSS, start=1))),
    # lung adenocarcinoma, masks of the validation and test images; palette PNG or RGB
    "WSSS4LUAD": ColorTable(
        numbers={0: "tumor", 1: "stroma", 2: "normal"},
        colors={(0, 64, 128): "tumor", (64, 128, 0): "stroma", (243, 152, 0): "normal"},
        background=(3, WHITE),
    ),
}
