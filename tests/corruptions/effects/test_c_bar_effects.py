"""Single facts of the corruptions of the C-bar benchmarks, and the functions that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import textured
from scipy import ndimage

from dtn_det.corruptions import corrupt
from dtn_det.corruptions.effects.c_bar import caustics, cover, perlin, spectral, splines, warps
from dtn_det.corruptions.effects.c_bar.trigonometry import angle_of, sine, sine_and_cosine
from dtn_det.corruptions.stream import Stream

GREY = np.full((64, 64, 3), 100, np.uint8)


def stream(key: int) -> Stream:
    return Stream(0, key, "a", 1)


class TestTrigonometry:
    ANGLES = np.concatenate((np.linspace(-20, 20, 4001), np.linspace(-1e4, 1e4, 4001))).astype(np.float32)

    def test_sines_and_cosines(self) -> None:
        exact = self.ANGLES.astype(np.float64)
        assert np.abs([sine(x) for x in self.ANGLES] - np.sin(exact)).max() < 3e-7
        sines, cosines = np.array([sine_and_cosine(x) for x in self.ANGLES]).T
        assert np.abs(sines - np.sin(exact)).max() < 3e-7
        assert np.abs(cosines - np.cos(exact)).max() < 3e-7

    def test_angles(self) -> None:
        vectors = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
        corners = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1)], np.float32)
        for y, x in (*vectors, *corners):
            assert angle_of(y, x) == pytest.approx(np.arctan2(y, x), abs=5e-7)


class TestSpectra:
    @pytest.mark.parametrize("side", [32, 33])
    def test_noise_is_the_real_part_of_the_field_with_that_spectrum(self, side: int) -> None:
        drawn = spectral.draw_blue_mask(stream(1), side, 4)
        left = drawn.phases[: side * (side // 2)].reshape(side, -1).astype(np.float64)
        parts = [left, left[::-1, ::-1]]
        if side % 2:
            middle = drawn.phases[left.size :].astype(np.float64)
            parts.insert(1, np.concatenate((middle, [0], middle[::-1]))[:, None])
        spectrum = np.sqrt(spectral.squared_frequencies(side)) * np.exp(1j * np.concatenate(parts, axis=1))
        field = np.fft.ifft2(np.roll(spectrum, (side // 2, side // 2), (0, 1))).real
        amplitudes = np.sqrt(spectral.squared_frequencies(side)).astype(np.float32)
        assert spectral.spectral_noise(amplitudes, drawn.phases) == pytest.approx(field / field.std(), abs=2e-5)

    def test_strength_and_share_are_those_of_a_normal_distribution(self) -> None:
        grey = np.full((96, 96, 3), 128, np.uint8)
        noisy = corrupt(grey, "brownish_noise", 3, key=1, profile="imagenet-c-bar", jpeg=False).astype(float)
        # Values are rounded down, which adds a variance of 1/12. The noise is not clipped at this strength.
        assert noisy.std(axis=(0, 1)) == pytest.approx([19.2] * 3, rel=0.01)
        # Below 1.2 * 1.4 - 2.5 standard deviations.
        kept = np.mean(
            [(corrupt(grey, "blue_noise_sample", 5, key=k, profile="cifar-c-bar") > 0).mean() for k in range(9)]
        )
        assert 1 - kept == pytest.approx(0.107, abs=0.01)


class TestPerlin:
    def test_a_gradient_of_zero_stays_zero(self) -> None:
        vectors = perlin.normalized(np.array([[3.0, -4.0], [0.0, 0.0]]))
        assert vectors.tolist() == [[0.6, -0.8], [0.0, 0.0]]

    def test_gradients_are_drawn_from_a_grid_of_512(self) -> None:
        drawn = perlin.draw_turbulence(stream(3), 5)
        assert sorted(drawn.order) == list(range(256))
        assert np.hypot(*drawn.gradients.T) == pytest.approx(np.ones(256))
        assert drawn.alpha == 0.25


class TestCover:
    def test_lines_are_grey_and_reach_as_far_as_the_side(self) -> None:
        ends = cover.line_ends(64, 0.0, 0.0, np.array([[0.5, 0.5, 0.1]]))
        assert ends.tolist() == [[-32, 32, 96, 32]]
        out = cover.apply_lines(GREY, cover.Lines(ends))
        assert (out[:, 32] == 128).all()
        assert (np.delete(out, 32, axis=1) == 100).all()

    def test_a_line_of_one_pixel(self) -> None:
        out = cover.apply_lines(GREY, cover.Lines(np.array([[5, 7, 5, 7]])))
        assert (out[5, 7] == 128).all()
        assert (out != 100).any(axis=2).sum() == 1

    def test_the_number_of_lines_grows_with_magnitude_and_side(self) -> None:
        assert [cover.line_count(32, m) for m in (0.5, 1, 1.5, 2, 2.5)] == [1, 3, 4, 6, 8]
        assert len(cover.draw_lines(stream(0), 224, 2).ends) == 44

    def test_black_fields_that_are_covered(self) -> None:
        covered = np.zeros((16, 16), bool)
        covered[1, 1] = True
        out = cover.apply_chessboard(GREY, cover.Chessboard(0.0, 16.0, covered))
        assert (out[16:32, 16:32] == 128).all()
        assert (out == 128).sum() == 3 * 16 * 16
        # A white field is not covered, whatever is drawn for it.
        covered[0, 1] = True
        assert (cover.apply_chessboard(GREY, cover.Chessboard(0.0, 16.0, covered)) == 128).sum() == 3 * 16 * 16


class TestWarps:
    def test_five_discs_a_side_at_224_and_three_else(self) -> None:
        assert [warps.draw_twirls(stream(0), side, 5).angles.shape for side in (32, 223, 224)] == [
            (3, 3),
            (3, 3),
            (5, 5),
        ]

    def test_what_no_disc_covers_stays(self) -> None:
        image = textured(32, 32)
        out = warps.apply_twirls(image, warps.draw_twirls(stream(0), 32, 10))
        # Discs have a diameter of 10 pixels, so the last two rows and columns and the corners of cells stay.
        assert np.array_equal(out[30:], image[30:])
        assert np.array_equal(out[:, 30:], image[:, 30:])
        assert np.array_equal(out[::10, ::10], image[::10, ::10])
        assert not np.array_equal(out, image)

    def test_ripples_without_amplitude_change_nothing(self) -> None:
        image = textured(40, 40)
        out = warps.apply_ripples(image, warps.Ripples((0, 0), (5, 6), (1, 2)))
        assert np.array_equal(out, image)


class TestSplines:
    @pytest.mark.parametrize("side", [32, 45])
    def test_coefficients_are_those_of_scipy(self, side: int) -> None:
        image = textured(side, side).astype(np.float32)
        for channel in range(3):
            expected = ndimage.spline_filter(image[:, :, channel], 3, np.float64, mode="mirror")
            assert splines.spline_coefficients(image)[:, :, channel] == pytest.approx(expected, abs=2e-3)

    @pytest.mark.parametrize("side", [32, 45])
    def test_the_blur_is_the_mean_of_turned_copies(self, side: int) -> None:
        image = textured(side, side)
        steps = np.linspace(-1, 1, 21)
        turned = [ndimage.rotate(image.astype(float), 7 * step, reshape=False) for step in steps]
        expected = np.average(turned, axis=0, weights=np.exp(-2 * steps**2)).clip(0, 255)
        found = splines.apply_turning(image, splines.Turning(7)).astype(float)
        assert np.abs(found + 0.5 - expected).max() < 0.501

    def test_a_channel_that_is_not_magnified_becomes_smoother(self) -> None:
        image = textured(32, 32)
        out = splines.apply_magnifications(image, splines.Magnifications((1.0, 1.0, 1.0)))
        kernel = np.outer([1, 4, 1], [1, 4, 1]) / 36
        for channel in range(3):
            expected = ndimage.convolve(image[:, :, channel].astype(float), kernel, mode="mirror")
            assert np.abs(out[:, :, channel] - expected).max() < 0.501

    def test_all_orders_of_the_channels_are_drawn(self) -> None:
        drawn = {splines.draw_magnifications(stream(key), 2).scales for key in range(60)}
        assert len(drawn) == 6
        assert all(sorted(scales) == [1, 1.05, 1.1] for scales in drawn)


class TestCaustics:
    def test_light_without_slopes_changes_nothing_within(self) -> None:
        """The light is zero beyond the image, so that slopes of its border remain."""
        image = textured(48, 48)
        drawn = caustics.Caustics(time=1, size=48, refraction=4, lens_scale=0, lighting=0)
        assert np.array_equal(caustics.apply_caustics(image, drawn), image)

    def test_light_repeats_with_its_period(self) -> None:
        light = caustics.caustic_light(96, 1.3, 48)
        assert light[:48, :48] == pytest.approx(light[48:, 48:], abs=1e-4)
        assert 0 <= light.min() < light.max() <= 1
