"""USDZ, which phones of Apple open in space: a mesh and its texture in one file, by OpenUSD."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OptionError, install_hint
from ..outputs import MARK
from .writing import linear

if TYPE_CHECKING:
    from .mesh import Mesh


def usdz_bytes(mesh: Mesh) -> bytes:
    """Returns a mesh as a USDZ file; a unit is a metre, and y is up.

    Args:
        mesh: with a texture, or with vertex colours alone.

    Raises:
        OptionError: usd-core is not installed.
    """
    try:
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt
    except ImportError:
        raise OptionError("Writing USDZ needs usd-core, which is not installed.", install_hint("usd")) from None
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        # The first name in the file is this program's mark.
        layer, image = Path(folder, f"{MARK}.usdc"), Path(folder, "texture.png")
        stage = Usd.Stage.CreateNew(str(layer))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, "/object")
        stage.SetDefaultPrim(root.GetPrim())
        shape = UsdGeom.Mesh.Define(stage, "/object/mesh")
        shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(mesh.vertices))
        shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
        shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).ravel()))
        shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.normals)))
        shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        low, high = mesh.vertices.min(axis=0).tolist(), mesh.vertices.max(axis=0).tolist()
        shape.CreateExtentAttr([Gf.Vec3f(*low), Gf.Vec3f(*high)])
        material = UsdShade.Material.Define(stage, "/object/material")
        shader = UsdShade.Shader.Define(stage, "/object/material/surface")
        shader.CreateIdAttr("UsdPreviewSurface")
        shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
        shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
        colour = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
        material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
        primvars = UsdGeom.PrimvarsAPI(shape)
        reader = UsdShade.Shader.Define(stage, "/object/material/reader")
        if mesh.texture is None:
            colours = primvars.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
            colours.Set(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(linear(mesh.colors))))
            reader.CreateIdAttr("UsdPrimvarReader_float3")
            reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("displayColor")
            output = reader.CreateOutput("result", Sdf.ValueTypeNames.Float3)
            colour.ConnectToSource(output)
        else:
            Image.fromarray(mesh.texture.image).save(image)
            places = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
            places.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(mesh.texture.uv.reshape(-1, 2))))
            reader.CreateIdAttr("UsdPrimvarReader_float2")
            reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
            texture = UsdShade.Shader.Define(stage, "/object/material/texture")
            texture.CreateIdAttr("UsdUVTexture")
            texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(image.name)
            texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
            texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(
                reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
            )
            colour.ConnectToSource(texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3))
        UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
        stage.GetRootLayer().Save()
        packed = Path(folder, "packed.usdz")
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(packed)):
            raise OSError(f"OpenUSD could not write {packed}.")
        return packed.read_bytes()
