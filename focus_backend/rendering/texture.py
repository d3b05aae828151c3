"""The texture of a fitted face: photo colours without the fitted light, the other half's where hidden, the model's albedo elsewhere.

All blending happens on the logarithm of the ratio between the photo's albedo and the model's own: 0 is the model, a constant is the same
face in another tone, and detail of the model shows through where the photo has none. The ratio of seen texels is diffused into the others
(pull-push), so that at the border of what was seen there is nothing to be seen; hidden texels whose mirror image was seen take that one
band by band (Laplacian pyramids).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from focus_backend.errors import ConfigError
from focus_backend.morphable.face_model import FaceModel
from focus_backend.progress import Beat, quiet
from focus_backend.rendering.camera import Camera
from focus_backend.rendering.lighting import decode_srgb, encode_srgb, shade
from focus_backend.rendering.normals import vertex_normals
from focus_backend.rendering.rasterize import rasterize
from focus_backend.rendering.renderer import locate
from focus_backend.rendering.texture_atlas import AlbedoGrid, TextureAtlas, smoothstep

TEXTURE_SIZE = 1024
# The surface may lie this far (mm) behind what the z-buffer holds: its pixels are coarse and slanted.
DEPTH_TOLERANCE = 3.5
# Neighbouring pixels that differ in depth by more (mm) are an edge; colours near one (mm) belong to the wrong surface if the fit is off.
DEPTH_EDGE, EDGE_MARGIN = 8.0, 2.5
# Cosine between normal and view below which a texel is not read, and above which it is fully believed.
FACING = (0.2, 0.55)
# Shading, as part of the face's median, below which the photo is noise, and above which it is believed: where the model of light is dark,
# a small error of it would become a bright stain.
SHADING = (0.15, 0.6)
# Inlier probability that counts nothing and fully; the mask is shrunk by this many mm and softened.
INLIER = (0.5, 0.95)
INLIER_MARGIN, INLIER_BLUR = 2.5, 1.0
# Eyes are read this far (mm) within what the lids show of them.
EYE_MARGIN = 1.0
LEAST_ALBEDO = 0.008
LOG_RATIO = (-2.5, 1.5)
# How far a texel may be darker (brows, lashes, stubble) or brighter than the face in all: beyond, it is a shadow or a highlight.
DARKER, BRIGHTER = 2.5, 0.6
# Texels that have to be seen before the global colour is what they say; it starts from the model's own.
GLOBAL_TEXELS = 0.002
MAX_ENLARGEMENT = 4.0


def enlarge_albedo(
    model: FaceModel, albedo_texture: Float[Tensor, "rows rows 3"], size: int = TEXTURE_SIZE
) -> UInt8[ndarray, "size size 3"]:
    """A model's albedo (linear RGB, row 0 at the top) as a smooth sRGB texture without seams at the borders of islands.

    Raises:
        ConfigError: `size` is not positive.
    """
    return _encode(_enlarged(model, albedo_texture, size), np.zeros((size, size, 3), np.float32))


def bake_texture(
    photo: UInt8[ndarray, "height width 3"],
    model: FaceModel,
    vertices: Float[Tensor, "vertices 3"],
    camera: Camera,
    lighting: Float[Tensor, "9 3"],
    inlier: Float[ndarray, "mask_height mask_width"],
    albedo_texture: Float[Tensor, "rows rows 3"],
    size: int = TEXTURE_SIZE,
    beat: Beat = quiet,
) -> UInt8[ndarray, "size size 3"]:
    """The sRGB texture of a fitted face, free of its lighting and of what hides it.

    Args:
        photo: sRGB.
        model: gives triangles, atlas and face region.
        vertices: as posed by the expression, model space, mm.
        camera: unbatched, photo pixels.
        lighting: spherical harmonics x RGB, camera space.
        inlier: probability of face at each photo pixel, 0 outside the rendered region.
        albedo_texture: the model's fitted albedo, linear RGB, row 0 at the top.
        size: rows and columns of the result.
        beat: called at every step.

    Raises:
        ConfigError: `inlier` and `photo` differ in size, or `size` is not positive.
    """
    if inlier.shape != photo.shape[:2]:
        raise ConfigError(f"the mask has {inlier.shape} pixels and the photo {photo.shape[:2]}", "give a mask of the photo's size")
    albedo = _enlarged(model, albedo_texture, size)
    atlas = TextureAtlas.of(model, size)
    beat()
    window = _view(photo, model, atlas, vertices.detach().cpu().double(), camera.detach().to("cpu").to(torch.float64), inlier)
    beat()
    ratio, weight = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    if window is not None:
        _read(window, model, atlas, lighting, albedo, ratio, weight)
    beat()
    completed = _complete(atlas, ratio, weight, beat)
    beat()
    return _encode(albedo, completed)


@dataclass(frozen=True)
class _View:
    """The part of the photo that shows the face.

    Attributes:
        positions, normals: of the vertices, camera space, mm.
        intrinsics: the `camera` argument of the kernel.
        photo: linear RGB.
        trust: probability that a pixel may be used, for skin and for the other islands.
        depth: of the nearest surface, mm; infinite where there is none.
    """

    positions: Float[ndarray, "vertices 3"]
    normals: Float[ndarray, "vertices 3"]
    intrinsics: Float[ndarray, "7"]
    photo: Float[ndarray, "rows columns 3"]
    trust: Float[ndarray, "grid_rows grid_columns 2"]
    depth: Float[ndarray, "grid_rows grid_columns"]


def _view(
    photo: UInt8[ndarray, "height width 3"],
    model: FaceModel,
    atlas: TextureAtlas,
    vertices: Float[Tensor, "vertices 3"],
    camera: Camera,
    inlier: Float[ndarray, "height width"],
) -> _View | None:
    """What the photo shows of the face, at the texture's resolution; None where it shows nothing."""
    size = atlas.size
    in_camera = camera.to_camera_space(vertices)
    points = camera.to_screen(in_camera)
    corners = model.triangles.cpu()
    box = _box(points[corners[model.triangle_in_face.cpu()].unique()], inlier)
    if box is None:
        return None
    left, top, right, bottom = box
    photo_scale = min(size / max(right - left, bottom - top), MAX_ENLARGEMENT)
    grid_scale = photo_scale * min(1.0, 512 / size)
    cut = _resized(photo[top:bottom, left:right], photo_scale)
    grid = points.clone()
    grid[:, :2] = (grid[:, :2] - grid.new_tensor([left, top])) * grid_scale
    rows, columns = (max(1, round(length * grid_scale)) for length in (bottom - top, right - left))
    depth, ids = _depth(grid, corners, rows, columns)
    pixels_per_mm = float(camera.focal_length) * grid_scale / float(points[:, 2].median())
    trust = _trust(_resized(inlier[top:bottom, left:right].astype(np.float32), grid_scale), depth, pixels_per_mm)
    trust = np.stack([trust, trust * _within((ids >= 0) & ~atlas.is_main[ids], pixels_per_mm)], -1)
    intrinsics = [float(camera.focal_length), *camera.principal_point.tolist(), left, top, photo_scale, grid_scale]
    normals = vertex_normals(in_camera[None], corners)[0]
    values = (in_camera.numpy(), normals.numpy(), np.array(intrinsics), _decode(cut), trust, depth)
    return _View(*(np.ascontiguousarray(value) for value in values))


def _box(points: Float[Tensor, "n 3"], inlier: Float[ndarray, "height width"]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the photo's part that shows the points; None where none does."""
    points = points[(points[:, 2] > 0) & points.isfinite().all(1), :2]
    if len(points) == 0 or not inlier.any():
        return None
    height, width = inlier.shape
    low, high = points.amin(0).clamp(min=-1).floor(), points.amax(0).clamp(max=max(height, width) + 1).ceil()
    left, top = (max(0, int(value) - 2) for value in low)
    right, bottom = min(width, int(high[0]) + 2), min(height, int(high[1]) + 2)
    return (left, top, right, bottom) if right - left >= 2 and bottom - top >= 2 else None


def _resized(picture: ndarray, scale: float) -> ndarray:
    """Area average when shrinking, so that nothing aliases; cubic when enlarging, so that no squares show."""
    shape = tuple(max(1, round(length * scale)) for length in picture.shape[1::-1])
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _depth(
    points: Float[Tensor, "vertices 3"], corners: Int[Tensor, "faces 3"], rows: int, columns: int
) -> tuple[Float[ndarray, "rows columns"], Int[ndarray, "rows columns"]]:
    """Depth of the nearest surface, mm, and its triangle."""
    from focus_backend.rendering.kernels_texture import depth_of

    ids = rasterize(points[None], corners, rows, columns, cull_backfaces=True)
    barycentric = locate(points[None], corners, ids)[0]
    depth = np.empty((rows, columns), np.float32)
    depth_of(ids[0].numpy(), barycentric.numpy(), corners.numpy(), points[:, 2].contiguous().numpy(), depth)
    return depth, ids[0].numpy()


def _trust(
    inlier: Float[ndarray, "rows columns"], depth: Float[ndarray, "rows columns"], pixels_per_mm: float
) -> Float[ndarray, "rows columns"]:
    """Where the photo may be read: within the mask, away from its border and from edges in depth."""
    finite = np.minimum(depth, 1e6)
    spread = cv2.dilate(finite, np.ones((3, 3))) - cv2.erode(finite, np.ones((3, 3)))
    is_edge = cv2.dilate((spread > DEPTH_EDGE).astype(np.uint8), _disc(EDGE_MARGIN * pixels_per_mm)) > 0
    trust = smoothstep((inlier - INLIER[0]) / (INLIER[1] - INLIER[0]))
    # Beyond the photo there is no face either, hence zeros outside.
    trust = cv2.erode(trust, _disc(INLIER_MARGIN * pixels_per_mm), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    trust[is_edge] = 0
    return cv2.GaussianBlur(trust, (0, 0), max(0.3, INLIER_BLUR * pixels_per_mm)) * (trust > 0)


def _within(shown: Bool[ndarray, "rows columns"], pixels_per_mm: float) -> Float[ndarray, "rows columns"]:
    """1 well within what is shown of the eyes: a lid that lies a little off must not be painted on the eyeball."""
    inner = cv2.erode(shown.astype(np.float32), _disc(EYE_MARGIN * pixels_per_mm))
    return cv2.GaussianBlur(inner, (0, 0), max(0.3, EYE_MARGIN / 2 * pixels_per_mm))


def _disc(radius: float) -> UInt8[ndarray, "rows rows"]:
    width = 2 * max(1, min(round(radius), 30)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))


def _read(
    window: _View,
    model: FaceModel,
    atlas: TextureAtlas,
    lighting: Float[Tensor, "9 3"],
    albedo: Float[ndarray, "size size 3"],
    ratio: Float[ndarray, "size size 3"],
    weight: Float[ndarray, "size size"],
) -> None:
    """Fill in `ratio` and `weight` of the texels that the photo shows."""
    from focus_backend.rendering.kernels_texture import read_photo

    lighting = lighting.detach().cpu().double()
    normals = torch.from_numpy(window.normals)
    is_front = normals[:, 2] > FACING[1]
    reference = float(shade(normals[is_front], lighting).mean(-1).median()) if bool(is_front.any()) else 1.0
    limits = np.array([DEPTH_TOLERANCE, *FACING, max(reference, 1e-3), *SHADING, LEAST_ALBEDO, *LOG_RATIO])
    read_photo(
        *(
            atlas.triangles,
            atlas.barycentric,
            atlas.face_weight,
            atlas.is_main,
            model.triangles.cpu().numpy(),
            window.positions,
            window.normals,
        ),
        *(lighting.numpy(), window.intrinsics, window.photo, window.trust, window.depth, albedo, limits, ratio, weight),
    )


def _complete(
    atlas: TextureAtlas, ratio: Float[ndarray, "size size 3"], weight: Float[ndarray, "size size"], beat: Beat
) -> Float[ndarray, "size size 3"]:
    """The log ratio everywhere, from where it is known."""
    if not weight.any():
        return ratio
    from focus_backend.rendering.kernels_texture import mix, temper_ratio

    colour = _global_ratio(ratio, weight)
    temper_ratio(ratio, weight, colour, DARKER, BRIGHTER)
    known, total = np.empty_like(ratio), np.empty_like(weight)
    mix(ratio, weight, atlas.prior, colour, known, total)
    beat()
    direct = _pull_push(known, total)
    beat()
    columns, rows = (np.ascontiguousarray(atlas.mirror[..., axis]) for axis in range(2))
    mirrored_weight = cv2.remap(weight, columns, rows, cv2.INTER_LINEAR) * atlas.has_mirror
    share = (1 - weight) * mirrored_weight * atlas.face_weight
    if not share.any():
        return direct
    mirrored = cv2.remap(direct, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    beat()
    return _blend_bands(direct, mirrored, share, beat)


def _global_ratio(ratio: Float[ndarray, "size size 3"], weight: Float[ndarray, "size size"]) -> Float[ndarray, "3"]:
    """The median log ratio of what was seen, drawn towards the model when that is little."""
    sparse = weight[::3, ::3] > 0.5
    count = int(sparse.sum())
    if count == 0:
        return np.zeros(3, np.float32)
    shrinkage = count / (count + GLOBAL_TEXELS * sparse.size)
    return (np.median(ratio[::3, ::3][sparse], axis=0) * shrinkage).astype(np.float32)


def _pull_push(values: Float[ndarray, "rows columns 3"], weight: Float[ndarray, "rows columns"]) -> Float[ndarray, "rows columns 3"]:
    """Values where the weight is 1, and elsewhere their smooth continuation (Gortler et al. 1996)."""
    levels = [(values, _for_channels(weight))]
    while min(values.shape[:2]) > 2:
        weighted, weight = cv2.pyrDown(values * levels[-1][1]), cv2.pyrDown(weight)
        values = weighted / _for_channels(np.maximum(weight, 1e-9))
        weight = np.minimum(2 * weight, 1)
        levels.append((values, _for_channels(weight)))
    mean = (values * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-9)
    filled = mean + (values - mean) * weight[..., None]
    for values, share in levels[-2::-1]:
        above = cv2.pyrUp(filled, dstsize=share.shape[1::-1])
        filled = above + (values - above) * share
    return filled


def _blend_bands(
    first: Float[ndarray, "size size 3"], second: Float[ndarray, "size size 3"], share: Float[ndarray, "size size"], beat: Beat
) -> Float[ndarray, "size size 3"]:
    """Replace `first` by that share of `second`, each frequency band over its own width (Burt and Adelson 1983)."""
    # The pyramid is linear: blending the difference's bands is blending both pictures'.
    difference, shares, bands = second - first, [share], []
    for _ in range(max(1, int(math.log2(len(share))) - 4)):
        coarse = cv2.pyrDown(difference)
        bands.append(difference - cv2.pyrUp(coarse, dstsize=difference.shape[1::-1]))
        difference = coarse
        shares.append(cv2.pyrDown(shares[-1]))
        beat()
    change = difference * shares[-1][..., None]
    for band, part in zip(bands[::-1], shares[-2::-1], strict=True):
        change = cv2.pyrUp(change, dstsize=part.shape[::-1]) + band * _for_channels(part)
        beat()
    return first + change


def _for_channels(weight: Float[ndarray, "rows columns"]) -> Float[ndarray, "rows columns 3"]:
    """The weight once a channel: numpy takes several times as long where it has to repeat a short last axis itself."""
    return cv2.merge([weight] * 3)


def _enlarged(model: FaceModel, albedo_texture: Float[Tensor, "rows rows 3"], size: int) -> Float[ndarray, "size size 3"]:
    """The model's albedo, linear RGB, filled beyond the islands before it is interpolated."""
    if size < 1:
        raise ConfigError(f"a texture of {size} pixels", "give a positive size")
    rows, columns = AlbedoGrid.of(model).nearest
    filled = albedo_texture.detach().cpu().float().numpy()[rows, columns]
    enlarged = cv2.resize(filled, (size, size), interpolation=cv2.INTER_CUBIC if size >= len(filled) else cv2.INTER_AREA)
    return np.clip(enlarged, 0, 1)


def _decode(picture: UInt8[ndarray, "rows columns 3"]) -> Float[ndarray, "rows columns 3"]:
    return cv2.LUT(picture, decode_srgb(torch.arange(256, dtype=torch.float64) / 255).float().numpy())


def _encode(albedo: Float[ndarray, "size size 3"], ratio: Float[ndarray, "size size 3"]) -> UInt8[ndarray, "size size 3"]:
    """albedo * exp(ratio), sRGB."""
    from focus_backend.rendering.kernels_texture import encode_product

    # The square root spreads dark values nearly as the sRGB curve does, so that no byte is missed.
    curve = encode_srgb(torch.linspace(0, 1, 4096, dtype=torch.float64) ** 2)
    encoded = np.empty(albedo.shape, np.uint8)
    encode_product(albedo, ratio, (curve * 255 + 0.5).clamp(0, 255).byte().numpy(), encoded)
    return encoded
