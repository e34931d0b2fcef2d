"""Clouds of voxels in plain PyTorch: cells, neighbours, windows, pooling and convolution."""

from visionpe.sparse.cells import CellIndex, check_cells, grouped
from visionpe.sparse.cloud import Voxels
from visionpe.sparse.convolution import Neighbourhood, SparseConv, cells_around
from visionpe.sparse.neighbours import nearest
from visionpe.sparse.orders import ORDERS, Order, curve_order
from visionpe.sparse.points import Recipe, pack_voxels, voxels_of_points
from visionpe.sparse.pooling import coarsen
from visionpe.sparse.voxels import voxelize
from visionpe.sparse.windows import Bucket, SparseWindows

__all__ = [
    "ORDERS",
    "Bucket",
    "CellIndex",
    "Neighbourhood",
    "Order",
    "Recipe",
    "SparseConv",
    "SparseWindows",
    "Voxels",
    "cells_around",
    "check_cells",
    "coarsen",
    "curve_order",
    "grouped",
    "nearest",
    "pack_voxels",
    "voxelize",
    "voxels_of_points",
]
