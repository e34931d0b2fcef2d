# Python runs this at every start where visionpe is installed (site-packages/visionpe.pth). It waits for mmengine and
# then makes `_base_ = "visionpe::..."` known there, so that OpenMMLab's own tools find our configs; it imports nothing.
import sys


class _KnowsVisionpe:
    def find_spec(self, name, path=None, target=None):
        if name != "mmengine.config.utils":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                getattr(module, "MODULE2PACKAGE", {}).setdefault("visionpe", "visionpe")

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _KnowsVisionpe())
