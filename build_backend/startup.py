# Python runs this at every start where visionpe is installed (site-packages/visionpe.pth). It waits for mmengine and
# then makes `_base_ = "visionpe::..."` known there, so that OpenMMLab's own tools find our configs; it imports nothing.
# Where the environment says VISIONPE_OPENMMLAB=1, the first import of a package of OpenMMLab that needs mmcv's
# operators imports visionpe.detection ahead of it, as `python -m visionpe.detection SCRIPT` does.
import os
import sys


class _KnowsVisionpe:
    def find_spec(self, name, path=None, target=None):
        if name != "mmengine.config.config":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                from mmengine.config.utils import MODULE2PACKAGE

                MODULE2PACKAGE["visionpe"] = "visionpe"
                # Ours build on "mmseg::", which the maintained fork serves by its module's name alone.
                MODULE2PACKAGE["mmseg"] = "mmseg"
                find = module.Config._get_cfg_path

                def find_unscoped(cfg_path, filename):  # the types in our configs are OpenMMLab's
                    file, scope = find(cfg_path, filename)
                    return file, None if scope == "visionpe" else scope

                module.Config._get_cfg_path = staticmethod(find_unscoped)

            spec.loader.exec_module = exec_module
        return spec


class _Loaded:
    def __init__(self, module):
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec):
        return self.module

    def exec_module(self, module):
        module.__spec__ = self.spec


class _BringsOperators:
    def find_spec(self, name, path=None, target=None):
        if name not in ("mmcv", "mmdet", "mmpretrain", "mmseg"):
            return None
        sys.meta_path.remove(self)
        if "visionpe.detection" not in sys.modules:
            import visionpe.detection  # noqa: F401

        if name not in sys.modules:
            return None
        from importlib.machinery import ModuleSpec

        # Taken out, as importlib would load it anew by the specification of what it finds there.
        return ModuleSpec(name, _Loaded(sys.modules.pop(name)), is_package=True)


sys.meta_path.insert(0, _KnowsVisionpe())
if os.environ.get("VISIONPE_OPENMMLAB") == "1":
    sys.meta_path.insert(0, _BringsOperators())
