"""Training of Gaussians on a GPU: the same loop as `Training`, drawn by gsplat, everything kept on the device.

Paper 1, section 1 of its note, like the CPU's loop. The two follow each other step by step where the pictures do; a test
holds them to it with the CPU rasteriser in gsplat's place. No GPU was at hand when this was written.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from isometry.errors import DivergedError
from isometry.scenes.capture.parameters import NAMES
from isometry.scenes.capture.photos import Photo
from isometry.scenes.capture.presets import Preset
from isometry.scenes.capture.training import cameras_extent
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians, rotation_matrices
from isometry.scenes.raster.gpu import draw, gsplat_and_torch, visible_in


class GpuTraining:
    """One run, with the methods of `Training`.

    Args:
        start: Gaussians to begin with.
        photos: what they shall look like.
        device: of torch.

    Raises:
        MissingExtraError, InputError: gsplat, torch or the device is not there.
    """

    def __init__(
        self, start: Gaussians, photos: list[Photo], preset: Preset, *, seed: int = 0, device: str = "cuda"
    ) -> None:
        self._rasterization, self._torch = gsplat_and_torch(device)
        torch = self._torch
        self.photos, self.preset, self.device = photos, preset, device
        self.extent = cameras_extent(photos)
        self.iteration, self._steps = 0, 0
        self.rng = np.random.default_rng(seed)
        self._views: list[int] = []
        padded = start.with_degree(preset.degree)
        self._values = {name: torch.tensor(getattr(padded, name), device=device) for name in NAMES}
        self._first = {name: torch.zeros_like(value) for name, value in self._values.items()}
        self._second = {name: torch.zeros_like(value) for name, value in self._values.items()}
        self._black = torch.zeros(3, device=device)
        taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
        self._taps = torch.tensor(taps / taps.sum(), dtype=torch.float32, device=device)
        self._reset_statistics()

    @property
    def count(self) -> int:
        """Gaussians now."""
        return len(self._values["means"])

    def _reset_statistics(self) -> None:
        self._pull = self._torch.zeros(self.count, device=self.device)
        self._seen = self._torch.zeros(self.count, device=self.device)

    def gaussians(self) -> Gaussians:
        """As trained so far, with the harmonics in use."""
        arrays = {name: value.detach().cpu().numpy() for name, value in self._values.items()}
        arrays["harmonics"] = arrays["harmonics"][:, : (self.preset.degree_at(self.iteration) + 1) ** 2]
        return Gaussians(*(arrays[name] for name in NAMES))

    def picture(self, camera: Camera) -> np.ndarray:
        """What a camera sees of the present state, `(h, w, 3)` float32."""
        degree = self.preset.degree_at(self.iteration)
        with self._torch.no_grad():
            both, _, _ = draw(self._rasterization, self._torch, self._cut(degree), camera, degree, self._black)
        seen: np.ndarray = both[..., :3].cpu().numpy()
        return seen

    def _cut(self, degree: int) -> dict[str, Any]:
        return {**self._values, "harmonics": self._values["harmonics"][:, : (degree + 1) ** 2]}

    def step(self) -> float:
        """One photograph; gives the loss before the step.

        Raises:
            DivergedError: a loss that is no number.
        """
        torch, preset = self._torch, self.preset
        if not self._views:
            self._views = self.rng.permutation(len(self.photos)).tolist()
        photo = self.photos[self._views.pop()]
        degree = preset.degree_at(self.iteration)
        values = {name: value.detach().requires_grad_() for name, value in self._cut(degree).items()}
        both, _, facts = draw(self._rasterization, torch, values, photo.camera, degree, self._black)
        facts["means2d"].retain_grad()
        loss = self._loss(both[..., :3], photo)
        size = float(loss.detach())
        if not math.isfinite(size):
            raise DivergedError(f"the loss is {size} at iteration {self.iteration} (view '{photo.camera.name}')")
        loss.backward()
        self.iteration += 1
        with torch.no_grad():
            if self.iteration < preset.densify_until:
                self._watch(facts, photo.camera)
            self._descend(values)
            self._multiply()
        return size

    def _loss(self, colour: Any, photo: Photo) -> Any:
        torch = self._torch
        wanted = torch.as_tensor(photo.colours, device=self.device)
        known = torch.as_tensor(photo.known, device=self.device)[..., None]
        colour = torch.where(known, colour, wanted)
        a, b = colour.permute(2, 0, 1)[:, None], wanted.permute(2, 0, 1)[:, None]
        mean, other = self._blurred(a), self._blurred(b)
        spread = self._blurred(a * a) - mean * mean
        other_spread = self._blurred(b * b) - other * other
        both = self._blurred(a * b) - mean * other
        similarity = ((2 * mean * other + 1e-4) * (2 * both + 9e-4)) / (
            (mean * mean + other * other + 1e-4) * (spread + other_spread + 9e-4)
        )
        structure = self.preset.structure
        return (1 - structure) * (colour - wanted).abs().mean() + structure * (1 - similarity.mean())

    def _blurred(self, planes: Any) -> Any:
        convolve = self._torch.nn.functional.conv2d
        return convolve(convolve(planes, self._taps[None, None, :, None], padding=(5, 0)),
                        self._taps[None, None, None, :], padding=(0, 5))  # fmt: skip

    def _watch(self, facts: dict[str, Any], camera: Camera) -> None:
        half = self._torch.tensor([camera.width / 2, camera.height / 2], device=self.device)
        pull = (facts["means2d"].grad[0] * half).norm(dim=1)
        visible = visible_in(facts)
        self._pull += self._torch.where(visible, pull, self._torch.zeros_like(pull))
        self._seen += visible

    def _descend(self, values: dict[str, Any]) -> None:
        preset = self.preset
        self._steps += 1
        low, high = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        rates = {"means": preset.position_rate(self.iteration) * self.extent, "log_scales": preset.scaling,
                 "quaternions": preset.rotation, "logits": preset.opacity, "harmonics": preset.feature}  # fmt: skip
        for name in NAMES:
            slope = values[name].grad
            if slope is None:
                continue
            used = slice(None) if name != "harmonics" else slice(slope.shape[1])
            first = self._first[name][:, used] if name == "harmonics" else self._first[name]
            second = self._second[name][:, used] if name == "harmonics" else self._second[name]
            first.mul_(0.9).add_(slope, alpha=0.1)
            second.mul_(0.999).addcmul_(slope, slope, value=0.001)
            step = first / (second.sqrt() / math.sqrt(high) + 1e-15) * (rates[name] / low)
            if name == "harmonics":
                step[:, 1:] /= 20
                self._values[name][:, used] -= step
            else:
                self._values[name] -= step

    def _multiply(self) -> None:
        if self.preset.multiplies_at(self.iteration):
            self._densify()
            self._prune(late=self.iteration > self.preset.reset_every)
            self._reset_statistics()
        if self.preset.dims_at(self.iteration):
            self._values["logits"].clamp_(max=math.log(0.01 / 0.99))
            self._first["logits"].zero_()
            self._second["logits"].zero_()

    def _densify(self) -> None:
        torch, preset, values = self._torch, self.preset, self._values
        pull = self._pull / self._seen.clamp(min=1)
        chosen = torch.nonzero(pull >= preset.gradient)[:, 0]
        room = max(0, preset.most - self.count)
        if len(chosen) > room:
            chosen = chosen[torch.argsort(-pull[chosen], stable=True)][:room]
        if not len(chosen):
            return
        sizes = torch.exp(values["log_scales"][chosen]).max(dim=1).values
        small = chosen[sizes <= preset.dense * self.extent]
        large = chosen[sizes > preset.dense * self.extent]
        added = {name: values[name][small] for name in NAMES}
        if len(large):
            twice = large.repeat_interleave(2)
            scales = torch.exp(values["log_scales"][twice])
            offsets = self.rng.normal(size=tuple(scales.shape)) * scales.cpu().numpy()
            turns = rotation_matrices(values["quaternions"][twice].cpu().numpy())
            moved = np.einsum("nij,nj->ni", turns, offsets).astype(np.float32)
            halves = {name: values[name][twice] for name in NAMES}
            halves["means"] = halves["means"] + torch.as_tensor(moved, device=self.device)
            halves["log_scales"] = halves["log_scales"] - math.log(1.6)
            added = {name: torch.cat([added[name], halves[name]]) for name in NAMES}
        keep = torch.ones(self.count, dtype=torch.bool, device=self.device)
        keep[large] = False
        self._keep(keep)
        for name in NAMES:
            none = torch.zeros_like(added[name])
            values[name] = torch.cat([values[name], added[name]])
            self._first[name] = torch.cat([self._first[name], none])
            self._second[name] = torch.cat([self._second[name], none])

    def _prune(self, *, late: bool) -> None:
        torch, values, faintest = self._torch, self._values, self.preset.faintest
        faint = values["logits"] < math.log(faintest / (1 - faintest))
        if late:
            faint |= torch.exp(values["log_scales"]).max(dim=1).values > 0.1 * self.extent
        if bool(faint.all()):
            faint[values["logits"].argmax()] = False
        self._keep(~faint)

    def _keep(self, rows: Any) -> None:
        for table in (self._values, self._first, self._second):
            for name in NAMES:
                table[name] = table[name][rows]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Everything that `restore` needs: arrays, and words."""
        arrays: dict[str, np.ndarray] = {}
        for kind, table in (("value", self._values), ("first", self._first), ("second", self._second)):
            arrays |= {f"{kind}.{name}": tensor.detach().cpu().numpy() for name, tensor in table.items()}
        arrays |= {"pull": self._pull.cpu().numpy(), "seen": self._seen.cpu().numpy()}
        words = {"iteration": self.iteration, "steps": self._steps, "views": self._views,
                 "random": self.rng.bit_generator.state}  # fmt: skip
        return arrays, {"training": json.dumps(words)}

    def restore(self, arrays: dict[str, np.ndarray], words: dict[str, str]) -> None:
        """Go on where `state` was taken."""
        told: dict[str, Any] = json.loads(words["training"])
        for kind, table in (("value", self._values), ("first", self._first), ("second", self._second)):
            for name in NAMES:
                table[name] = self._torch.tensor(arrays[f"{kind}.{name}"], device=self.device)
        self._pull = self._torch.tensor(arrays["pull"], device=self.device)
        self._seen = self._torch.tensor(arrays["seen"], device=self.device)
        self.iteration, self._steps = int(told["iteration"]), int(told["steps"])
        self._views = [int(view) for view in told["views"]]
        self.rng.bit_generator.state = told["random"]
