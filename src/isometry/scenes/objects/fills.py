"""Fills holes in a picture: OpenCV's Telea or Navier-Stokes, or a network of the LaMa type from an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isometry.errors import InputError, MissingExtraError, NotFoundError

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
_SIDE = 512


def find_fill(name: str = "telea") -> Fill:
    """A fill by name: 'telea', 'navier-stokes', or the path of an ONNX network.

    A fill takes a picture `(h, w, 3)` float32 within 0..1 and a hole `(h, w)` bool, and gives the picture without it.

    Raises:
        NotFoundError: no such name or file. InputError: a file that is no such network.
    """
    if name in ("telea", "navier-stokes"):
        return lambda picture, hole: _opencv_fill(picture, hole, name)
    path = Path(name)
    if not path.is_file():
        raise NotFoundError(f"there is no fill '{name}': use telea, navier-stokes, or the path of an ONNX network")
    return network_fill(path)


def network_fill(path: Path) -> Fill:
    """A network with inputs `image` (1, 3, 512, 512) within 0..1 and `mask` (1, 1, 512, 512), as OpenCV's zoo has LaMa.

    Its answer may lie within 0..1 or 0..255. An ONNX file holds layers and weights, no code. Names and sizes are from
    memory of that zoo: low confidence.

    Raises:
        InputError: the file cannot be read as a network, or does not take these inputs.
    """
    cv2 = _opencv()
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise InputError(f"{path}: not an ONNX network that can be read: {_short(error)}") from error

    def fill(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
        height, width = hole.shape
        image = cv2.resize(np.ascontiguousarray(picture, np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(hole.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
        try:
            network.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None]), "image")
            network.setInput((mask > 0).astype(np.float32)[None, None], "mask")
            answer = np.asarray(network.forward(), np.float32)
        except cv2.error as error:
            raise InputError(f"{path}: the network does not take an 'image' and a 'mask': {_short(error)}") from error
        if answer.shape != (1, 3, _SIDE, _SIDE) or not np.isfinite(answer).all():
            raise InputError(
                f"{path}: the network answers {answer.shape} and not (1, 3, {_SIDE}, {_SIDE}) finite numbers"
            )
        scaled = answer[0] / np.float32(255 if answer.max() > 2 else 1)
        small = cv2.resize(np.ascontiguousarray(scaled.transpose(1, 2, 0)), (width, height))
        return np.where(hole[..., None], np.clip(small, 0, 1), picture).astype(np.float32)

    return fill


def _opencv_fill(picture: np.ndarray, hole: np.ndarray, name: str) -> np.ndarray:
    cv2 = _opencv()
    method = cv2.INPAINT_TELEA if name == "telea" else cv2.INPAINT_NS
    bytes_ = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    filled = cv2.inpaint(bytes_, hole.astype(np.uint8), 3, method).astype(np.float32) / 255
    return np.where(hole[..., None], filled, picture).astype(np.float32)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("filling what an object hid", "scene") from error
    return cv2
