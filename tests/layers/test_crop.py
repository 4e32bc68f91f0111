from __future__ import annotations

import pytest
import torch

from darknet_py.errors import CfgError
from darknet_py.layers.crop import CropLayer, CropSpec
from tests.layers.small_networks import network


class TestCrop:
    def crop(self, **options: object) -> CropLayer:
        values = {
            "height": 3,
            "width": 4,
            "flip": False,
            "angle": 0.0,
            "saturation": 1.0,
            "exposure": 1.0,
            "shift": 0.0,
        }
        return CropLayer(CropSpec(**{**values, "noadjust": True, **options})).train()  # type: ignore[arg-type]

    def test_windows_lie_within_the_image(self) -> None:
        torch.manual_seed(0)
        x = torch.arange(48.0).view(1, 1, 6, 8).expand(200, 1, 6, 8)
        y = self.crop()(x)
        assert torch.allclose(y[:, :, :, 1:] - y[:, :, :, :-1], torch.ones(1), atol=1e-3)
        assert y.min() >= -1e-3 and y.max() <= 47 + 1e-3 and y[:, 0, 0, 0].unique().numel() > 100

    def test_half_of_them_are_mirrored(self) -> None:
        torch.manual_seed(0)
        x = torch.arange(48.0).view(1, 1, 6, 8).expand(200, 1, 6, 8)
        slope = self.crop(flip=True)(x)[:, 0, 0, 1] - self.crop(flip=True)(x)[:, 0, 0, 0]
        assert 60 < int((self.crop(flip=True)(x).diff(dim=3)[:, 0, 0, 0] < 0).sum()) < 140 and slope.isfinite().all()

    def test_colors_are_cs(self) -> None:
        """One pixel through C's rgb_to_hsv and hsv_to_rgb: hue 20°, saturation .75, value .8."""
        torch.manual_seed(0)
        layer = self.crop(height=1, width=1, saturation=1.2, exposure=1.2)
        x = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(50, 3, 1, 1)
        y = layer(x).flatten(1)
        value, low = y.amax(1), y.amin(1)
        saturation = 1 - low / value
        hue = (y[:, 1] - low) / (value - low)
        assert torch.allclose(hue, torch.full((50,), 1 / 3), atol=1e-4)  # the hue stays
        assert (value >= 0.8 / 1.2 - 1e-4).all() and (value <= 0.8 * 1.2 + 1e-4).all()
        assert (saturation >= 0.625 - 1e-4).all() and (saturation <= 0.9 + 1e-4).all()
        assert saturation.unique().numel() > 20

    def test_rotation_keeps_the_center(self) -> None:
        torch.manual_seed(0)
        x = torch.zeros(20, 1, 9, 9)
        x[:, :, 3:6, 3:6] = 1
        y = self.crop(height=9, width=9, angle=90.0)(x)
        assert torch.allclose(y[:, 0, 4, 4], torch.ones(20)) and y[:, 0, 0, 0].abs().max() < 1e-6

    def test_windows_larger_than_the_image_are_rejected(self) -> None:
        with pytest.raises(CfgError, match="expected an input of at least 20 x 3 pixels, got 8 x 6"):
            network("[crop]\ncrop_height=3\ncrop_width=20\n")
