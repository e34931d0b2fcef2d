# Python runs this at every start where visionpe is installed (site-packages/visionpe.pth). It imports nothing. It waits
# for mmengine and then makes `_base_ = "visionpe::..."` known there, so that OpenMMLab's own tools find our configs.
# `import visionpe` finds the package beside a folder of that name, such as a clone above which Python was started.
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


class _FindsVisionpe:
    # The finder of an editable install is asked last; before it a folder without __init__.py passes for a package.
    def find_spec(self, name, path=None, target=None):
        if name != "visionpe" or path is not None:
            return None
        others = [finder for finder in sys.meta_path if type(finder).__name__ != type(self).__name__]  # may stand twice
        others = [finder for finder in others if hasattr(finder, "find_spec")]
        found = (finder.find_spec(name, path, target) for finder in others)
        return next((spec for spec in found if spec is not None and spec.origin is not None), None)


sys.meta_path[:0] = [_KnowsVisionpe(), _FindsVisionpe()]
