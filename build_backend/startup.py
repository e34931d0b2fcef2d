# Python runs this at every start where visionpe is installed (site-packages/visionpe.pth). It imports nothing. It waits
# for mmengine and then makes `_base_ = "visionpe::..."` known there, so that OpenMMLab's own tools find our configs.
# `import visionpe` finds the package beside a folder of that name, such as a clone above which Python was started.
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


class _AfterVisionpe:
    """Loads a package of OpenMMLab when visionpe.detection has been imported, which has loaded it by then."""

    def __init__(self, spec, finder):
        self.loader, self.finder, self.done, self.own = spec.loader, finder, None, None

    def create_module(self, spec):
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
            import visionpe.detection  # noqa: F401

            self.done = sys.modules.get(spec.name)
        if self.done is None:
            return self.loader.create_module(spec)
        self.own = self.done.__spec__
        return self.done

    def exec_module(self, module):
        if self.done is None:
            self.loader.exec_module(module)
        else:
            module.__spec__ = self.own

    def __getattr__(self, name):
        return getattr(self.loader, name)


class _BringsOperators:
    def find_spec(self, name, path=None, target=None):
        if name not in ("mmcv", "mmdet", "mmpretrain", "mmseg"):
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _AfterVisionpe(spec, self)
                return spec
        return None


class _FindsVisionpe:
    # The finder of an editable install is asked last; before it a folder without __init__.py passes for a package.
    def find_spec(self, name, path=None, target=None):
        if name != "visionpe" or path is not None:
            return None
        others = [finder for finder in sys.meta_path if type(finder).__name__ != type(self).__name__]  # may stand twice
        others = [finder for finder in others if hasattr(finder, "find_spec")]
        found = (finder.find_spec(name, path, target) for finder in others)
        return next((spec for spec in found if spec is not None and spec.origin is not None), None)


if not hasattr(sys, "_visionpe_started"):  # once, from however many folders of packages
    sys._visionpe_started = True
    sys.meta_path[:0] = [_KnowsVisionpe(), _FindsVisionpe()]
    if os.environ.get("VISIONPE_OPENMMLAB") == "1":
        sys.meta_path.insert(0, _BringsOperators())
